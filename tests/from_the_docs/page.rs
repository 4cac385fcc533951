//! What a page tells its reader to write.

use std::fs;
use std::path::Path;

/// What a project is made of.
#[derive(Debug)]
pub(crate) struct Files {
    /// The lines for `Cargo.toml`.
    pub(crate) manifest: String,
    /// The other files, by their paths.
    pub(crate) sources: Vec<(String, String)>,
}

/// Returns the text of a page of this repository.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the README's first example and the lines that it has for `Cargo.toml`.
pub(crate) fn of_the_readme(readme: &str) -> Files {
    let blocks = blocks(readme);
    let first = |language: &str| {
        let mut blocks = blocks.iter();
        let block = blocks.find(|block| block.language.split(',').next() == Some(language));
        block.unwrap().text.clone()
    };
    Files {
        manifest: first("toml"),
        sources: vec![("src/main.rs".to_owned(), first("rust"))],
    }
}

/// Returns the files in the section "From an empty project": each is a block behind a line that begins with its path and
/// ends with a colon.
pub(crate) fn of_the_section(page: &str) -> Files {
    let (_, section) = page.split_once("\n## From an empty project\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut sources: Vec<(String, String)> = Vec::new();
    let mut manifest = None;
    for block in blocks(section) {
        let path = block.introduction.strip_prefix('`');
        let Some((path, _)) = path.and_then(|rest| rest.split_once('`')) else {
            continue;
        };
        match path {
            "Cargo.toml" => manifest = Some(block.text),
            // The environment has the URL.
            ".env" => {}
            path => sources.push((path.to_owned(), block.text)),
        }
    }
    assert!(sources.len() >= 2, "{sources:?}");
    Files {
        manifest: manifest.unwrap(),
        sources,
    }
}

struct Block {
    /// The last line before it that is not empty.
    introduction: String,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut introduction = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```");
            let text = text.fold(String::new(), |text, line| text + line + "\n");
            blocks.push(Block {
                introduction: introduction.clone(),
                language: language.to_owned(),
                text,
            });
        } else if !line.is_empty() {
            line.clone_into(&mut introduction);
        }
    }
    blocks
}
