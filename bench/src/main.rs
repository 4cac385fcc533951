//! This crate beside its peers: `make bench`, or `SUITE=checkout,words make bench`.
//!
//! All run against the same server in the same run, and take turns; a ratio is the median over the rounds, so that
//! whatever else the machine does hits all alike. Writes `docs/benchmarks.md`, and the figures as `docs/benchmarks.json`.
//! `COMPARE=FILE` names an earlier `benchmarks.json`: what got worse by more than its spread is told, and what
//! did by more than runs of the same code differ is a failure.

mod compare;
mod count;
mod page;
mod plot;
mod pools;
mod report;
mod schema;
mod stand_in;
mod stats;
mod suites;

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use crate::compare::Worse;
use crate::page::Page;
use crate::report::Chapter;
use crate::suites::{ALL, Suite, When};
// The example's files, which a suite has, look for these at the root.
use crate::suites::{App, Db, extract, problem};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match &arguments[..] {
        [] => measure(),
        // What needs a process of its own.
        [part, rest @ ..] => suites::run_part(part, rest).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn measure() -> Result<ExitCode, Box<dyn Error>> {
    let before = match env::var("COMPARE") {
        Ok(file) if !file.is_empty() => Some(Page::read(file.as_ref())?),
        _ => None,
    };
    let docs = stand_in::repository().join("docs");
    let json = docs.join("benchmarks.json");
    let report = || match json.exists() {
        true => Page::read(&json),
        false => Ok(Page::default()),
    };
    // One that cannot be read is told of before anything runs.
    report()?;
    count::clean_up();
    let mut now = Vec::new();
    let mut code = ExitCode::SUCCESS;
    let wanted = wanted(&env::var("SUITE").unwrap_or_default())?;
    let (waiting, working): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|suite| suite.when == When::Beside);
    let turns = once_if_any(waiting).chain(working.into_iter().map(|suite| vec![suite]));
    for turn in turns {
        let outcomes = run(&turn);
        // Another run may have written it meanwhile.
        let mut page = report()?;
        for outcome in outcomes {
            match outcome {
                Ok(chapter) => {
                    println!("{}", page::markdown_of(&chapter));
                    page.replace(chapter.clone());
                    now.push(chapter);
                }
                Err(suite) => {
                    eprintln!("{suite} has failed: its chapter is left as it was");
                    code = ExitCode::FAILURE;
                }
            }
        }
        pools::end_processes();
        // What is done is kept if a later suite fails.
        put(&json, &page.json()?)?;
        put(&docs.join("benchmarks.md"), &page.markdown())?;
    }
    let is_worse = before.is_some_and(|before| compare(before.chapters, &now));
    Ok(if is_worse { ExitCode::FAILURE } else { code })
}

/// Writes a file as a whole: who is ended in the middle of it leaves the old one.
fn put(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

/// Tells what got worse; returns whether something certainly did.
fn compare(mut before: Vec<Chapter>, now: &[Chapter]) -> bool {
    before.retain(|chapter| now.iter().any(|one| one.suite == chapter.suite));
    for name in compare::only_in(now, &before) {
        eprintln!("not compared, as the file does not have it: {name}");
    }
    for name in compare::only_in(&before, now) {
        eprintln!("not compared, as only the file has it: {name}");
    }
    for name in compare::without_peers(&before, now) {
        eprintln!("not compared, as no peer has a figure beside it: {name}");
    }
    let mut is_worse = false;
    for one in compare::worse(&before, now) {
        match one {
            Worse::Certainly(line) => {
                eprintln!("worse: {line}");
                is_worse = true;
            }
            Worse::Perhaps(line) => eprintln!("worse by more than its spread: {line}"),
            Worse::Gone(line) => eprintln!("not measured any more: {line}"),
        }
    }
    is_worse
}

fn once_if_any(suites: Vec<&'static Suite>) -> impl Iterator<Item = Vec<&'static Suite>> {
    (!suites.is_empty()).then_some(suites).into_iter()
}

/// Runs suites beside each other. Returns the name of one that fails; it has said why.
fn run(suites: &[&'static Suite]) -> Vec<Result<Chapter, &'static str>> {
    let run = |suite: &'static Suite| {
        let began = Instant::now();
        eprintln!("{} …", suite.name);
        let chapter = (suite.run)();
        eprintln!("{}: {:.0} s", suite.name, began.elapsed().as_secs_f64());
        chapter
    };
    thread::scope(|scope| {
        let running: Vec<_> = suites
            .iter()
            .map(|suite| scope.spawn(move || run(suite)))
            .collect();
        let ended = running.into_iter().map(|suite| suite.join());
        let named = suites.iter().map(|suite| suite.name).zip(ended);
        named.map(|(name, ended)| ended.map_err(|_| name)).collect()
    })
}

/// Returns the suites of a list with commas, in the page's order; all that need not be named, if it is empty.
fn wanted(list: &str) -> Result<Vec<&'static Suite>, String> {
    let names = list.split([',', ' ']).filter(|name| !name.is_empty());
    let names: Vec<_> = names.collect();
    let is_known = |name: &&&str| ALL.iter().any(|suite| suite.name == **name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known = ALL.iter().map(|suite| suite.name).collect::<Vec<_>>();
        let known = known.join(", ");
        return Err(format!("no suite is called {unknown}: SUITE takes {known}"));
    }
    let is_wanted = |suite: &&Suite| match names.is_empty() {
        true => suite.when != When::Named,
        false => names.contains(&suite.name),
    };
    Ok(ALL.iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_wanted_once_and_in_its_order() {
        let names = |list| -> Vec<&str> {
            let wanted = wanted(list).unwrap();
            wanted.iter().map(|suite| suite.name).collect()
        };
        assert_eq!(names("words,rest, words"), ["rest", "words"]);
        assert_eq!(names("features"), ["features"]);
        assert!(names(" ,").len() > 9 && !names("").contains(&"features"));
        assert!(wanted("words,nothing").is_err_and(|told| told.contains("nothing: SUITE takes")));
    }
}
