//! What the files of a tree import.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};

/// The path of a module below the root, which is empty itself.
pub(super) type Module = Vec<String>;

/// A file, and what it names of the crate.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) imports: Vec<Import>,
    /// The names that its `use` lines bring in, each with what it stands for.
    names: BTreeMap<String, Module>,
    /// Its child modules that are compiled for tests alone.
    tests: BTreeSet<String>,
}

/// A path into the crate.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) path: Module,
    pub(super) line: usize,
    /// Whether more is done with it than to pass it on by a `pub use`.
    pub(super) is_needed: bool,
}

/// Reads the files of a tree, each under its path; without those that are compiled for tests alone.
pub(super) fn sources(files: &BTreeMap<String, String>) -> BTreeMap<Module, Source> {
    let modules: BTreeSet<Module> = files.keys().map(|file| module(file)).collect();
    let mut sources = BTreeMap::new();
    for (file, text) in files {
        // A binary beside a library has no modules of its own here.
        if file == "main.rs" && files.contains_key("lib.rs") {
            continue;
        }
        let module = module(file);
        let reader = Reader {
            modules: &modules,
            tokens: without_tests(tokens(text)),
            at: 0,
            inline: Vec::new(),
            depth: 0,
            source: Source::default(),
            module: module.clone(),
        };
        sources.insert(module, reader.read(file));
    }
    let tests: Vec<Module> = sources
        .iter()
        .flat_map(|(module, source)| source.tests.iter().map(|test| below(module, test)))
        .collect();
    sources.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    sources
}

/// Returns the module that a path leads to, through the re-exports on the way.
pub(super) fn resolve(sources: &BTreeMap<Module, Source>, path: &[String]) -> Module {
    let mut path = path.to_vec();
    // Names that stand for each other would lead round and round.
    for _ in 0..16 {
        let longest = (0..=path.len())
            .rev()
            .find(|length| sources.contains_key(&path[..*length]))
            .unwrap_or(0);
        let module = path[..longest].to_vec();
        let next = path.get(longest);
        let source = sources.get(&module);
        match source.and_then(|source| source.names.get(next?)) {
            Some(stands_for) => {
                path = [&stands_for[..], &path[longest + 1..]].concat();
            }
            None => return module,
        }
    }
    path.truncate(1);
    path
}

fn module(file: &str) -> Module {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

fn below(module: &[String], child: &str) -> Module {
    [module, &[child.to_owned()]].concat()
}

struct Reader<'a> {
    modules: &'a BTreeSet<Module>,
    tokens: Vec<Token>,
    at: usize,
    module: Module,
    /// The modules written out in the file around this place, each with the depth of its braces.
    inline: Vec<(String, usize)>,
    depth: usize,
    source: Source,
}

impl Reader<'_> {
    fn read(mut self, file: &str) -> Source {
        self.source.file = file.to_owned();
        let mut passed_on = Vec::new();
        let mut words = BTreeMap::<String, usize>::new();
        while let Some(token) = self.tokens.get(self.at).cloned() {
            match token.text.as_str() {
                "{" => self.depth += 1,
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    let depth = self.depth;
                    self.inline.pop_if(|(_, outside)| *outside == depth);
                }
                "mod" if self.text(2) == "{" => {
                    self.inline.push((self.text(1).to_owned(), self.depth));
                    self.at += 1;
                }
                MARK => {
                    self.source.tests.insert(self.text(1).to_owned());
                    self.at += 1;
                }
                "use" if self.text(1) != "<" => {
                    let is_public = self.is_public();
                    self.at += 1;
                    let mut leaves = Vec::new();
                    self.tree(&mut Vec::new(), &mut leaves);
                    for leaf in leaves {
                        self.imported(leaf, is_public, &mut passed_on);
                    }
                    continue;
                }
                _ => {
                    *words.entry(token.text.clone()).or_default() += 1;
                    if self.begins_path() {
                        self.path(token.line);
                        continue;
                    }
                }
            }
            self.at += 1;
        }
        for (name, index) in passed_on {
            let import: &mut Import = &mut self.source.imports[index];
            import.is_needed = name != "*" && words.contains_key(&name);
        }
        self.source
    }

    fn text(&self, ahead: usize) -> &str {
        let token = self.tokens.get(self.at + ahead);
        token.map_or("", |token| token.text.as_str())
    }

    fn before(&self, back: usize) -> &str {
        let token = self.at.checked_sub(back).and_then(|at| self.tokens.get(at));
        token.map_or("", |token| token.text.as_str())
    }

    fn is_public(&self) -> bool {
        matches!(self.before(1), "pub" | ")")
    }

    /// Whether a path of this crate begins here.
    fn begins_path(&self) -> bool {
        // `pub(in crate::a)` imports nothing.
        self.text(1) == "::"
            && !matches!(self.before(1), "::" | "in")
            && self.absolute(&[self.text(0).to_owned()]).is_some()
    }

    /// Reads a path in the code.
    fn path(&mut self, line: usize) {
        let mut path = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::"
            && self
                .text(1)
                .starts_with(|c: char| c == '_' || c.is_alphanumeric())
        {
            path.push(self.text(1).to_owned());
            self.at += 2;
        }
        if let Some(path) = self.absolute(&path) {
            self.source.imports.push(Import {
                path,
                line,
                is_needed: true,
            });
        }
    }

    /// Reads one tree of a `use`, up to and with its `,` or `;`.
    fn tree(&mut self, prefix: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
        let (length, mut name) = (prefix.len(), None);
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            match self.text(0).to_owned().as_str() {
                // Another crate's.
                "::" if prefix.is_empty() => prefix.push(String::new()),
                "::" => {}
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.tree(prefix, leaves);
                    }
                    self.at += 1;
                    self.at += usize::from(matches!(self.text(0), "," | ";"));
                    prefix.truncate(length);
                    return;
                }
                "as" => {
                    name = Some(self.text(1).to_owned());
                    self.at += 1;
                }
                "," | ";" | "}" | "" => break,
                // In a group: the module itself.
                "self" if !prefix.is_empty() => {}
                word => prefix.push(word.to_owned()),
            }
            self.at += 1;
        }
        self.at += usize::from(matches!(self.text(0), "," | ";"));
        leaves.push(Leaf {
            name: name.or(prefix.last().cloned()).unwrap_or_default(),
            path: prefix.clone(),
            line,
        });
        prefix.truncate(length);
    }

    fn imported(&mut self, leaf: Leaf, is_public: bool, passed_on: &mut Vec<(String, usize)>) {
        let Some(mut path) = self.absolute(&leaf.path) else {
            return;
        };
        path.pop_if(|last| last == "*");
        if is_public {
            passed_on.push((leaf.name.clone(), self.source.imports.len()));
        }
        self.source.imports.push(Import {
            path: path.clone(),
            line: leaf.line,
            is_needed: true,
        });
        if self.inline.is_empty() && leaf.name != "*" {
            self.source.names.insert(leaf.name, path);
        }
    }

    /// Returns the path from the root on; nothing for one that leads into another crate.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let inline = self.inline.iter().map(|(name, _)| name.clone());
        let mut base: Module = self.module.iter().cloned().chain(inline).collect();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" | "super" => {
                rest = rest.strip_prefix(&["self".to_owned()]).unwrap_or(rest);
                while rest.first().is_some_and(|word| word == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child if self.modules.contains(&below(&base, child)) => {}
            _ => return None,
        }
        Some([&base[..], rest].concat())
    }
}

/// One name that a `use` brings in.
struct Leaf {
    path: Vec<String>,
    name: String,
    line: usize,
}

/// Stands for `mod` where the module is compiled for tests alone; no word of Rust.
const MARK: &str = "#test";

/// Leaves out what is compiled for tests alone.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(behind) = test_attribute(&tokens[at..]).map(|length| at + length) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let end = end_of_item(&tokens, behind);
        let item = &tokens[behind..end];
        let declared = item.iter().position(|token| token.text == "mod");
        if let Some(declared) =
            declared.filter(|_| item.last().is_some_and(|last| last.text == ";"))
        {
            let text = MARK.to_owned();
            kept.push(Token {
                text,
                ..item[declared].clone()
            });
            kept.extend(item[declared + 1..].iter().cloned());
        }
        at = end;
    }
    kept
}

/// The length of the `#[cfg(test)]` at the beginning, if there is one.
fn test_attribute(tokens: &[Token]) -> Option<usize> {
    let words: Vec<&str> = tokens
        .iter()
        .take(4)
        .map(|token| token.text.as_str())
        .collect();
    if words != ["#", "[", "cfg", "("] {
        return None;
    }
    let length = tokens.iter().position(|token| token.text == "]")? + 1;
    let has = |word| tokens[..length].iter().any(|token| token.text == word);
    (has("test") && !has("not")).then_some(length)
}

/// The end of an item: behind its `;`, its braces, or the comma that ends a field or an arm.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    const ITEMS: [&str; 8] = [
        "async", "const", "enum", "fn", "impl", "struct", "trait", "type",
    ];
    let (mut at, mut depth) = (from, 0_usize);
    // Its commas stand between generics.
    let mut is_item = false;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return at,
            "}" if depth == 1 => return at + 1,
            "}" | ")" | "]" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            "," if depth == 0 && !is_item => return at + 1,
            word if depth == 0 => is_item |= ITEMS.contains(&word),
            _ => {}
        }
        at += 1;
    }
    at
}
