//! Holds a source tree to its layers: which room may import which, and no circles among the files of one room.
//!
//! A room is a module of the crate's root, a file or a folder. `lib.rs` and `main.rs` stand above all rooms. The sources
//! are read as text: `use` lines and paths in code count, `#[cfg(test)]` items do not.
#![allow(dead_code, reason = "not every tree needs all of it")]

mod imports;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use self::imports::{Module, Source};

/// A room, and the rooms that it may import; [`ABOVE`] stands for all before it in the list.
pub(crate) type Room<'a> = (&'a str, &'a [&'a str]);

/// Every room that comes earlier in the list.
pub(crate) const ABOVE: &[&str] = &["*"];

/// Fails and names every import that is not allowed, by file, line and arrow.
///
/// `root` is the folder of `lib.rs`. A room imports only from rooms that come before it in the list, and only from
/// those that stand beside it there.
#[track_caller]
pub(crate) fn assert_layers(root: &Path, rooms: &[Room<'_>]) {
    let complaints = complaints(&read(root), rooms);
    assert!(
        complaints.is_empty(),
        "{} in {}:\n{}",
        complaints.len(),
        root.display(),
        complaints.join("\n")
    );
}

/// Returns the sources below `root`, each under its path.
pub(crate) fn read(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    read_folder(root, root, &mut files);
    files
}

fn read_folder(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            read_folder(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is text");
            let name = path.strip_prefix(root).expect("it is below the root");
            files.insert(name.to_str().expect("UTF-8").replace('\\', "/"), text);
        }
    }
}

/// Returns what is wrong with these files, each under its path below the root.
pub(crate) fn complaints(files: &BTreeMap<String, String>, rooms: &[Room<'_>]) -> Vec<String> {
    let sources = imports::sources(files);
    let mut complaints = list_itself(&sources, rooms);
    let mut edges = BTreeMap::new();
    for (module, source) in &sources {
        let Some(room) = module.first() else { continue };
        for import in &source.imports {
            let target = imports::resolve(&sources, &import.path);
            let other = target.first().map_or("the root", String::as_str);
            if other != room && !may_import(rooms, room, other) {
                complaints.push(format!(
                    "{}:{}: {room} -> {other} (`{}`)",
                    source.file,
                    import.line,
                    import.path.join("::"),
                ));
            }
            if other == room && target != *module && import.is_needed {
                let lines: &mut BTreeMap<Module, usize> = edges.entry(module.clone()).or_default();
                lines.entry(target).or_insert(import.line);
            }
        }
    }
    complaints.extend(circles(&sources, &edges));
    complaints
}

fn may_import(rooms: &[Room<'_>], room: &str, other: &str) -> bool {
    let place = |name| rooms.iter().position(|(known, _)| *known == name);
    match (place(room), place(other)) {
        (Some(own), Some(others)) => {
            others < own && (rooms[own].1 == ABOVE || rooms[own].1.contains(&other))
        }
        // That it is not in the list has been said.
        (None, _) => true,
        (_, None) => false,
    }
}

/// Every room is in the list, and the list names nothing else and has no arrow that runs back.
fn list_itself(sources: &BTreeMap<Module, Source>, rooms: &[Room<'_>]) -> Vec<String> {
    let found: BTreeSet<&str> = sources.keys().filter_map(|m| Some(&**m.first()?)).collect();
    let mut complaints: Vec<_> = found
        .iter()
        .filter(|name| !rooms.iter().any(|(room, _)| room == *name))
        .map(|name| format!("the room `{name}` is not in the list"))
        .collect();
    for (place, (room, imports)) in rooms.iter().enumerate() {
        if !found.contains(room) {
            complaints.push(format!("the list has a room `{room}`, the sources do not"));
        }
        for other in imports.iter().filter(|_| *imports != ABOVE) {
            if !rooms[..place].iter().any(|(above, _)| above == other) {
                complaints.push(format!("in the list: {room} -> {other} runs back"));
            }
        }
    }
    complaints
}

/// Which modules of its own room a module imports, and on which line first.
type Edges = BTreeMap<Module, BTreeMap<Module, usize>>;

/// Names one circle through each module that is on any.
fn circles(sources: &BTreeMap<Module, Source>, edges: &Edges) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut complaints = Vec::new();
    for start in edges.keys() {
        if told.contains(start) {
            continue;
        }
        let Some(circle) = way_back(edges, start) else {
            continue;
        };
        let mut arrows = String::new();
        for (from, to) in circle.iter().zip(circle.iter().cycle().skip(1)) {
            let line = edges[from][to];
            arrows.push_str(&format!("{}:{line} -> ", sources[from].file));
        }
        complaints.push(format!("a circle: {arrows}{}", sources[start].file));
        told.extend(circle);
    }
    complaints
}

/// Returns the shortest way from a module back to itself.
fn way_back(edges: &Edges, start: &Module) -> Option<Vec<Module>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().expect("a way has a beginning");
            for next in edges.get(last).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([&way[..], std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}
