//! `docs/benchmarks.md`, and the figures that it is made of.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::pools::versions_of_python;
use crate::report::{Chapter, Standing};
use crate::stand_in;
use crate::suites::ALL;

#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Page {
    /// Where and when the last suite ran.
    machine: String,
    pub chapters: Vec<Chapter>,
}

impl Page {
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let file = path.display();
        let read = fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
        let report = serde_json::from_str(&read);
        Ok(report.map_err(|error| format!("{file} is no report of these benchmarks: {error}"))?)
    }

    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(|json| json + "\n")
    }

    /// Puts a chapter at its place, instead of the one that was there.
    pub fn replace(&mut self, chapter: Chapter) {
        self.machine = machine();
        self.chapters.retain(|one| one.suite != chapter.suite);
        self.chapters.push(chapter);
        let place = |chapter: &Chapter| ALL.iter().position(|suite| suite.name == chapter.suite);
        // A suite that is gone would leave its chapter behind.
        self.chapters.retain(|chapter| place(chapter).is_some());
        self.chapters.sort_by_key(place);
    }

    pub fn markdown(&self) -> String {
        let chapters: Vec<_> = self.chapters.iter().map(markdown_of).collect();
        let (machine, glance) = (&self.machine, self.glance());
        format!(
            "{HEAD}\n{machine}\n\n{glance}\n{}{FOOT}",
            chapters.join("\n")
        )
    }

    /// Returns a table that counts, for each chapter, the figures in which we are ahead of a peer, or not.
    fn glance(&self) -> String {
        let mut table = String::from(GLANCE);
        for chapter in &self.chapters {
            let tables = chapter.tables.iter();
            let standings: Vec<_> = tables.flat_map(|table| table.standings()).collect();
            if standings.is_empty() {
                continue;
            }
            let count = |wanted| standings.iter().filter(|one| **one == wanted).count();
            let anchor = chapter.title.to_lowercase().replace(' ', "-");
            table += &format!(
                "| [{}](#{anchor}) | {} | {} | {} |\n",
                chapter.title,
                count(Standing::Ahead),
                count(Standing::Level),
                count(Standing::Behind)
            );
        }
        table
    }
}

const GLANCE: &str = "\
How often a figure of ours is better than a peer's by more than it spreads, level with it, or worse. The chapters say why we are behind, \
where we know it. A count weighs nothing: read the rows that are yours.

| | ahead | level | behind |
|---|---|---|---|
";

pub fn markdown_of(chapter: &Chapter) -> String {
    let Chapter {
        suite, title, text, ..
    } = chapter;
    let mut page = format!("## {title}\n\n`SUITE={suite} make bench`. {text}\n\n");
    for plot in &chapter.plots {
        page += &format!("![{}]({})\n\n", plot.alt, plot.path);
    }
    for table in &chapter.tables {
        page += &format!("{}\n", table.markdown());
    }
    page
}

/// Says what ran where, and when.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let output = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let line = String::from_utf8(output.stdout).ok()?;
        Some(line.lines().next()?.trim().to_owned())
    };
    let said = |program: &Path, arguments: &[&str]| {
        let name = program.file_name().unwrap_or_default().display();
        output(program, arguments).unwrap_or_else(|| format!("no {name}"))
    };
    let version = |program: &Path| said(program, &["--version"]);
    // The stand-in looks there, too: Debian keeps the server off the path.
    let installed = output(Path::new("pg_config"), &["--bindir"]);
    let postgres = Path::new("postgres");
    let postgres = output(postgres, &["--version"]).unwrap_or_else(|| {
        let installed = installed.unwrap_or_default();
        version(&Path::new(&installed).join(postgres))
    });
    let versions = [
        postgres,
        version(&stand_in::pgbouncer()),
        version(Path::new("rustc")),
        crates(),
    ];
    let date = said(Path::new("date"), &["-u", "+%Y-%m-%d"]);
    format!(
        "The last run, of these chapters or of some: {cores} cores, {model}; {}. {date}.",
        versions.join("; ")
    )
}

/// Returns our version and the peers', as the lock file has them, and Python's as they say.
fn crates() -> String {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &&str| {
        let entry = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", entry.1.split('"').next()?))
    };
    let names = [
        "diesel-neon",
        "diesel",
        "diesel-async",
        "bb8",
        "deadpool",
        "mobc",
        "deadpool-postgres",
        "sqlx",
        "r2d2",
        "tokio-postgres",
    ];
    let versions = names.iter().filter_map(version);
    let pythons = versions_of_python().map(String::from);
    versions.chain(pythons).collect::<Vec<_>>().join(", ")
}

const HEAD: &str = "\
# Benchmarks

`make bench` writes this page: this crate beside its peers, on `neon-sim` and one PostgreSQL, in turns. A peer's cell has ours divided
by the peer's, the median over the rounds and how far the middle half of them lies apart, and in brackets what the peer has by itself.
Bold: ours is better by more than that, or by a tenth where fewer than five rounds tell no spread, and the medians say the same.
Absolute times vary between runs, ratios of arms that take turns do less, and counts hardly do.
";

const FOOT: &str = "
## Memory

What an open connection takes on the client depends on its statements and on what it has read: see [Statements](#statements) for one
that has done all operations, and [A fleet](#a-fleet) for ten thousand that have done one look-up each.
`CONNECTIONS=1000 cargo test --test memory -- --nocapture` tells it of a connection with 50 named statements, beside an
`AsyncPgConnection`, and how much of a result of 100 MB is held while it is streamed: less than 1 MB, or the test fails.

## Soak

`cargo run -p neon-sim --example soak` mixes load with suspensions of every kind, kills, refusals, hung logins and
cancellations for ten minutes, and verifies after each round that no acknowledged write is missing or doubled.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn chapter(suite: &str) -> Chapter {
        Chapter {
            suite: suite.to_owned(),
            title: suite.to_owned(),
            text: String::new(),
            tables: Vec::new(),
            plots: Vec::new(),
        }
    }

    #[test]
    fn a_page_has_the_chapters_of_the_suites_that_there_are_in_their_order() {
        let mut page = Page::default();
        for suite in ["of another version", "server", "rest"] {
            page.chapters.push(chapter(suite));
        }
        page.replace(chapter("words"));
        let suites = page.chapters.iter().map(|one| one.suite.as_str());
        assert_eq!(suites.collect::<Vec<_>>(), ["rest", "words", "server"]);
    }
}
