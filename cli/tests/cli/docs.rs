//! The documentation's lines of `diesel-neon` against the command itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::folder::{Folder, Text, repository};

/// The command, asked for help of each task once.
struct Helper {
    folder: Folder,
    known: BTreeMap<Vec<String>, Option<String>>,
}

impl Helper {
    fn new(name: &str) -> Self {
        Self {
            folder: Folder::new(name),
            known: BTreeMap::new(),
        }
    }

    /// Returns what the task's help says, if there is such a task.
    fn help(&mut self, task: &[&str]) -> Option<&str> {
        let key = task.iter().map(|&word| word.to_owned()).collect();
        let help = self.known.entry(key).or_insert_with(|| {
            let mut command = self.folder.command();
            let out = Text::of(command.args(task).arg("--help").output().unwrap());
            (out.code == Some(0)).then_some(out.stdout)
        });
        help.as_deref()
    }

    /// Returns what is wrong with a line of a shell that calls the command.
    fn complaint(&mut self, line: &str) -> Option<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let (task, rest) = words.split_first()?;
        // Several tasks in one: `migrate run|revert`.
        let (mut path, rest) = match *task {
            "diesel" => return None,
            "migrate" => {
                let tasks = rest.first().filter(|word| !word.starts_with('-'));
                let tasks: Vec<_> = tasks.map_or(vec![], |word| word.split('|').collect());
                let unknown = tasks
                    .iter()
                    .find(|name| self.help(&["migrate", name]).is_none());
                if let Some(unknown) = unknown {
                    return Some(format!("migrate has no {unknown}"));
                }
                let skipped = usize::from(!tasks.is_empty());
                ([vec!["migrate"], tasks].concat(), &rest[skipped..])
            }
            task => (vec![task], rest),
        };
        path.truncate(2);
        let Some(help) = self.help(&path) else {
            return Some(format!("there is no {}", path.join(" ")));
        };
        let flags = rest
            .iter()
            .take_while(|word| !["|", "&&", "#", ">", "…"].contains(word));
        let flags = flags.filter(|word| word.starts_with("--"));
        for flag in flags {
            let name = flag.split_once('=').map_or(*flag, |(name, _)| name);
            let is_known = help
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .any(|word| word == name);
            if !is_known {
                return Some(format!("{} has no {name}", path.join(" ")));
            }
        }
        None
    }
}

/// Returns the calls of the command in a page: in blocks of code, and between backticks.
fn calls(page: &str) -> Vec<String> {
    let mut calls = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let spans: Vec<_> = match in_block {
            true => vec![line],
            false => line.split('`').skip(1).step_by(2).collect(),
        };
        for span in spans {
            for (at, _) in span.match_indices("diesel-neon ") {
                let begins = span[..at].trim_end().rsplit(' ').next().unwrap();
                // A word of its own, and not of cargo's or an install's.
                let is_call = span[..at].is_empty()
                    || begins.is_empty()
                    || begins.ends_with(['(', ':', '&', '|', '"']);
                let call = &span[at + "diesel-neon ".len()..];
                let call = call.split([')', '"', '`']).next().unwrap();
                if is_call && !call.trim_start().starts_with(['=', '{']) {
                    calls.push(call.trim().to_owned());
                }
            }
        }
    }
    calls
}

/// Returns the pages for people.
fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut pages: Vec<PathBuf> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .collect();
    for page in [
        "README.md",
        "cli/README.md",
        "neon-sim/README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
    ] {
        pages.push(root.join(page));
    }
    pages
}

#[test]
fn every_call_in_the_documentation_exists() {
    let mut helper = Helper::new("docs");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for call in calls(&text) {
            seen += 1;
            if let Some(complaint) = helper.complaint(&call) {
                wrong.push(format!(
                    "{}: diesel-neon {call}: {complaint}",
                    page.display()
                ));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 20, "only {seen} calls were found");
}

/// Returns where a page's links and pictures lead, without the place in the page; none of other sites.
fn links(page: &str) -> Vec<&str> {
    let inline = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(to, _)| to);
    let defined = page.lines().filter(|line| line.starts_with('['));
    let defined = defined
        .filter_map(|line| line.split_once("]: "))
        .map(|(_, to)| to);
    let pictures = ["src=\"", "srcset=\""].into_iter();
    let pictures = pictures
        .flat_map(|name| page.split(name).skip(1))
        .filter_map(|rest| rest.split_once('"'))
        .map(|(to, _)| to);
    let files = inline
        .chain(defined)
        .chain(pictures)
        .map(|to| to.split('#').next().unwrap());
    files
        .filter(|to| !to.is_empty() && !to.contains("://"))
        .collect()
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            seen += 1;
            let to = page.parent().unwrap().join(link);
            assert!(to.exists(), "{}: {link}", page.display());
        }
    }
    assert!(seen > 15, "only {seen} links were found");
    let page = "[a](b.md#c) [d][e], [f](https://g.example)\n[e]: h.md\n[i]: https://j.example\n\
                <source srcset=\"k.png\"><img src=\"l.png\">\n";
    assert_eq!(links(page), ["b.md", "h.md", "l.png", "k.png"]);
}

/// Returns the lines that look like a table's and stand in none: an empty line ends a table.
fn rows_without_a_head(page: &str) -> Vec<&str> {
    let mut lines = page.lines().peekable();
    let mut rows = Vec::new();
    let (mut is_code, mut is_table) = (false, false);
    while let Some(line) = lines.next() {
        is_code ^= line.starts_with("```");
        let is_row = line.starts_with('|') && !is_code;
        let has_head = is_table || lines.peek().is_some_and(|next| next.starts_with("|---"));
        is_table = is_row && has_head;
        if is_row && !is_table {
            rows.push(line);
        }
    }
    rows
}

#[test]
fn every_row_of_the_documentation_is_in_a_table() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let rows = rows_without_a_head(&text);
        assert!(rows.is_empty(), "{}: {rows:#?}", page.display());
    }
    let page = "| a | b |\n|---|---|\n| c | d |\n\n| e | f |\n```text\n| g |\n```\n";
    assert_eq!(rows_without_a_head(page), ["| e | f |"]);
}

#[test]
fn a_call_that_does_not_exist_is_found() {
    let page = "`diesel-neon doctor --instance 4` or\n```sh\ncargo add diesel-neon --dev\n\
                diesel-neon migrate up\n  - run: diesel-neon url --direct --json # --not-this\n\
                export A=\"$(diesel-neon url --indirect)\"\ndiesel-neon sizes --help\n\
                diesel-neon migrate run --lock-wait 5m && diesel-neon diesel setup --anything\n```\n";
    let calls = calls(page);
    assert_eq!(calls.len(), 7, "{calls:?}");
    let mut helper = Helper::new("docs_wrong");
    let complaints: Vec<_> = calls
        .iter()
        .filter_map(|call| helper.complaint(call))
        .collect();
    assert_eq!(
        complaints,
        [
            "doctor has no --instance",
            "migrate has no up",
            "url has no --indirect",
            "there is no sizes",
        ]
    );
}
