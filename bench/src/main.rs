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
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use crate::compare::Worse;
use crate::page::Page;
use crate::report::Chapter;
use crate::suites::{ALL, Suite, When};
// The example's files, which a suite has, look for these at the root.
use crate::suites::{App, Db, extract, problem};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [suite, rest @ ..] = &arguments[..] {
        // A part of a suite that needs a process of its own.
        suites::run_part(suite, rest);
        return Ok(ExitCode::SUCCESS);
    }
    let before = match env::var("COMPARE") {
        Ok(file) if !file.is_empty() => Some(Page::read(file.as_ref())?),
        _ => None,
    };
    let docs = stand_in::repository().join("docs");
    let json = docs.join("benchmarks.json");
    let mut page = match json.exists() {
        true => Page::read(&json)?,
        false => Page::default(),
    };
    let mut now = Vec::new();
    let wanted = wanted(&env::var("SUITE").unwrap_or_default())?;
    let (waiting, working): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|suite| suite.when == When::Beside);
    let turns = once_if_any(waiting).chain(working.into_iter().map(|suite| vec![suite]));
    for turn in turns {
        for chapter in run(&turn) {
            println!("{}", page::markdown_of(&chapter));
            page.replace(chapter.clone());
            now.push(chapter);
        }
        pools::end_processes();
        // What is done is kept if a later suite fails.
        fs::write(&json, page.json()?)?;
        fs::write(docs.join("benchmarks.md"), page.markdown())?;
    }
    let worse = before.map_or_else(Vec::new, |before| {
        let is_there = |suite: &str| before.chapters.iter().any(|one| one.suite == suite);
        for chapter in now.iter().filter(|chapter| !is_there(&chapter.suite)) {
            eprintln!("not compared, as it is not in the file: {}", chapter.suite);
        }
        compare::worse(&before.chapters, &now)
    });
    let mut code = ExitCode::SUCCESS;
    for one in worse {
        match one {
            Worse::Certainly(line) => {
                eprintln!("worse: {line}");
                code = ExitCode::FAILURE;
            }
            Worse::Perhaps(line) => eprintln!("worse by more than its spread: {line}"),
        }
    }
    Ok(code)
}

fn once_if_any(suites: Vec<&'static Suite>) -> impl Iterator<Item = Vec<&'static Suite>> {
    (!suites.is_empty()).then_some(suites).into_iter()
}

/// Runs suites beside each other.
fn run(suites: &[&'static Suite]) -> Vec<Chapter> {
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
        ended.map(|chapter| chapter.expect("no panic")).collect()
    })
}

/// Returns the suites of a list with commas; all that need not be named, if it is empty.
fn wanted(list: &str) -> Result<Vec<&'static Suite>, String> {
    let names: Vec<_> = list
        .split([',', ' '])
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        let all = ALL.iter().filter(|suite| suite.when != When::Named);
        return Ok(all.collect());
    }
    let find = |name: &&str| {
        let known: Vec<_> = ALL.iter().map(|suite| suite.name).collect();
        let suite = ALL.iter().find(|suite| suite.name == *name);
        suite.ok_or_else(|| {
            format!(
                "no suite is called {name}: SUITE takes {}",
                known.join(", ")
            )
        })
    };
    names.iter().map(find).collect()
}
