//! The layers of the sources, and their checker on small trees that are made up.

#[path = "common/layers/mod.rs"]
mod layers;

use std::collections::BTreeMap;
use std::path::Path;

use layers::{ABOVE, Room, assert_layers, complaints};

/// The rooms of `src/` and what each may import; `ARCHITECTURE.md` says what lives in them.
const SRC: &[Room<'static>] = &[
    ("util", &[]),
    ("protocol", &[]),
    ("url", &["util"]),
    ("env", &["url", "util"]),
    ("policy", &["util"]),
    ("transport", &["url", "util"]),
    ("session", &["protocol", "transport", "util"]),
    ("pooler", &["policy", "session", "url"]),
    (
        "connect",
        &["policy", "pooler", "session", "transport", "url", "util"],
    ),
    ("query", &["connect", "protocol"]),
    (
        "connection",
        &[
            "connect", "policy", "pooler", "protocol", "query", "session", "url", "util",
        ],
    ),
    (
        "http",
        &[
            "connect",
            "policy",
            "protocol",
            "query",
            "transport",
            "url",
            "util",
        ],
    ),
    (
        "pool",
        &[
            "connect",
            "connection",
            "env",
            "policy",
            "query",
            "session",
            "transport",
            "url",
            "util",
        ],
    ),
    (
        "migration",
        &[
            "connect",
            "env",
            "policy",
            "session",
            "transport",
            "url",
            "util",
        ],
    ),
    ("axum", &["connection", "pool", "util"]),
    (
        "blocking",
        &[
            "connect",
            "connection",
            "policy",
            "pool",
            "query",
            "session",
            "url",
            "util",
        ],
    ),
    ("telemetry", &["query", "url", "util"]),
    ("books", ABOVE),
    (
        "diagnose",
        &["connect", "connection", "session", "transport"],
    ),
    ("guide", &[]),
];

#[test]
fn each_room_imports_only_from_those_above_and_none_has_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_layers(&root, SRC);
}

const ROOMS: [Room<'static>; 3] = [("low", &[]), ("middle", &["low"]), ("high", ABOVE)];

/// Checks a tree of three rooms, with these files in place of those that import nothing.
fn check(files: &[(&str, &str)]) -> Vec<String> {
    let mut tree: BTreeMap<String, String> = ["lib.rs", "low.rs", "middle.rs", "high.rs"]
        .map(|name| (name.to_owned(), String::new()))
        .into();
    for (name, text) in files {
        let room = format!("{}.rs", name.split('/').next().unwrap());
        tree.remove(&room);
        tree.insert((*name).to_owned(), (*text).to_owned());
    }
    complaints(&tree, &ROOMS)
}

const NONE: [&str; 0] = [];

#[test]
fn an_arrow_that_runs_down_the_list_is_fine() {
    let down = [
        (
            "lib.rs",
            "pub use crate::high::High; mod low; mod middle; mod high;",
        ),
        ("middle.rs", "use crate::low::Low;"),
        (
            "high.rs",
            "use std::fmt; use crate::{low, middle::{self, Middle}}; fn f() { crate::low::g() }",
        ),
    ];
    assert_eq!(check(&down), NONE);
}

#[test]
fn an_arrow_that_runs_back_is_named_by_file_and_line_however_it_is_written() {
    for (text, line) in [
        ("use crate::high::High;", 1),
        ("use crate::{low::Low, high::{High, Higher}};", 1),
        ("use crate::{\n    low::Low,\n    high::High,\n};", 3),
        ("use super::high::High as Low;", 1),
        ("pub(crate) use crate::high::*;", 1),
        ("use crate::high;", 1),
        ("use self::super::high::High;", 1),
        ("fn f() -> u8 {\n    crate::high::f()\n}", 2),
        ("fn f(high: &super::high::High) {}", 1),
        ("mod inner {\n    use super::super::high::High;\n}", 2),
        ("macro_rules! m { () => { $crate::high::f() } }", 1),
        (
            "impl<'a> F<'a> { fn c() -> char { '\"' } fn h() { crate::high::f() } } // \"",
            1,
        ),
        (
            "const A: &str = r#\"\"\"#;\nuse crate::high::High;\nconst B: u8 = b'\"';",
            2,
        ),
        ("/* a /* nested */ comment */ use crate::high::High;", 1),
        ("fn f() -> impl Sized + use<> {}\nuse crate::high::High;", 2),
        ("#[cfg(not(test))]\nuse crate::high::High;", 2),
        (
            "#[cfg(test)]\nfn f<A, B>(a: A) -> B { todo!() }\nuse crate::high::High;",
            3,
        ),
    ] {
        let found = check(&[("middle.rs", text)]);
        assert!(!found.is_empty(), "{text}");
        let arrow = format!("middle.rs:{line}: middle -> high (`high");
        assert!(
            found.iter().all(|f| f.starts_with(&arrow)),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn an_arrow_is_only_allowed_where_the_list_says_so() {
    let sideways = check(&[("low.rs", "use crate::middle::Middle;")]);
    assert_eq!(sideways, ["low.rs:1: low -> middle (`middle::Middle`)"]);
    let rooms: [Room<'_>; 3] = [("low", &[]), ("middle", &[]), ("high", &["middle"])];
    let tree: BTreeMap<String, String> = [
        ("low.rs", ""),
        ("middle.rs", ""),
        (
            "high/mod.rs",
            "use crate::middle::Middle;\nuse crate::low::Low;",
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let found = complaints(&tree, &rooms);
    assert_eq!(found, ["high/mod.rs:2: high -> low (`low::Low`)"]);
}

#[test]
fn a_re_export_of_the_root_is_an_arrow_to_its_room() {
    let found = check(&[
        (
            "lib.rs",
            "pub use crate::high::High;\npub const ROOT: u8 = 0;",
        ),
        ("middle.rs", "use crate::High;\nuse crate::ROOT;"),
    ]);
    let arrows = [
        "middle.rs:1: middle -> high (`High`)",
        "middle.rs:2: middle -> the root (`ROOT`)",
    ];
    assert_eq!(found, arrows);
}

#[test]
fn what_is_no_import_is_left_alone() {
    for text in [
        "//! See [`crate::high::High`].\n// use crate::high::High;",
        "/// crate::high::High\nfn f() {}",
        "const A: &str = \"use crate::high::High;\";",
        "const A: &str = r#\"\"; crate::high::f() \"#;",
        "pub(in crate::high) fn f() {}",
        "use other::crate_::high; use ::high::High; use std::high;",
        "#[cfg(test)]\nmod tests {\n    use crate::high::High;\n}",
        "#[cfg(all(test, feature = \"a\"))]\nuse crate::high::High;",
        "#[cfg(test)]\n#[allow(unused)]\nfn f<A, B>() { crate::high::f() }",
        "fn f(high: u8) -> u8 { self.high() + high }",
    ] {
        assert_eq!(check(&[("middle.rs", text)]), NONE, "{text}");
    }
    let files = [
        ("middle/mod.rs", "#[cfg(test)]\nmod tests;"),
        ("middle/tests.rs", "use crate::high::High;"),
    ];
    assert_eq!(check(&files), NONE);
}

#[test]
fn files_of_one_room_that_import_each_other_are_named() {
    let found = check(&[
        ("middle/mod.rs", "mod a; mod b; mod c; pub use self::a::A;"),
        ("middle/a.rs", "use super::b::B;"),
        ("middle/b.rs", "\nuse super::c;"),
        ("middle/c.rs", "fn f() { crate::middle::a::f() }"),
    ]);
    let circle = "a circle: middle/a.rs:1 -> middle/b.rs:2 -> middle/c.rs:1 -> middle/a.rs";
    assert_eq!(found, [circle]);
}

#[test]
fn a_folder_and_its_files_may_not_import_each_other_either() {
    for front in [
        "mod a;\nuse self::a::A;\npub struct Middle;",
        "mod a;\nuse a::A;\npub struct Middle;",
        "mod a;\npub fn f() { a::f() }\npub struct Middle;",
        "mod a;\npub use self::a::A;\npub struct Middle(A);",
    ] {
        for back in [
            "use super::Middle;",
            "use crate::middle::Middle;",
            "use super::*;",
        ] {
            let found = check(&[("middle/mod.rs", front), ("middle/a.rs", back)]);
            let circle = "a circle: middle/mod.rs:2 -> middle/a.rs:1 -> middle/mod.rs";
            assert_eq!(found, [circle], "{front} {back}");
        }
    }
    // Handing on is not needing.
    let front = "mod a; mod b; pub use self::a::A; pub use self::b::B; pub struct Middle;";
    let found = check(&[
        ("middle/mod.rs", front),
        ("middle/a.rs", "use super::{B, Middle};"),
        ("middle/b.rs", "use super::Middle;"),
    ]);
    assert_eq!(found, NONE);
}

#[test]
fn re_exports_do_not_hide_a_circle() {
    let found = check(&[
        (
            "middle/mod.rs",
            "mod a; mod b; pub use self::{a::A, b::B as Other};",
        ),
        ("middle/a.rs", "use super::Other;"),
        ("middle/b.rs", "use crate::middle::A;"),
    ]);
    assert_eq!(
        found,
        ["a circle: middle/a.rs:1 -> middle/b.rs:1 -> middle/a.rs"]
    );
}

#[test]
fn the_list_must_be_complete_and_run_one_way() {
    let tree: BTreeMap<String, String> = [("a.rs", ""), ("b/c.rs", "")]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
    let found = complaints(&tree, &[("a", &["d"]), ("d", &[])]);
    let expected = [
        "the room `b` is not in the list",
        "in the list: a -> d runs back",
        "the list has a room `d`, the sources do not",
    ];
    assert_eq!(found, expected);
}

#[test]
#[should_panic(expected = "is not in the list")]
fn a_tree_on_disk_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_layers(&root, &[]);
}
