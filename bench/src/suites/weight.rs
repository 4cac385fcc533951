//! What a program gets with each pool: crates, time to build, and size.

use std::env;
use std::process::{Command, Stdio};

use crate::report::{Cell, Chapter, Table, Unit};
use crate::stand_in;
use crate::stats::Figure;

pub fn run() -> Chapter {
    let (columns, programs): (Vec<_>, Vec<_>) = PROGRAMS.into_iter().unzip();
    let features = script("features", &[]);
    let features: Vec<_> = features.lines().collect();
    let is_alone = env::var("SUITE").is_ok_and(|suites| suites.trim() == "weight");

    let mut beside = Table::new("programs", "", &columns);
    let mut wanted = programs.clone();
    // Too long for a run of all suites.
    if is_alone {
        wanted.extend(&features);
        wanted.push(ALL);
    }
    let built = script("figures", &wanted);
    let built: Vec<_> = built.lines().map(Weight::read).collect();
    for (what, unit, value) in ROWS {
        let values = built.iter().map(value).take(programs.len());
        beside.counted(what, unit, &values.map(Some).collect::<Vec<_>>());
    }

    let ours: Vec<_> = ["default"]
        .into_iter()
        .chain(features)
        .chain([ALL])
        .collect();
    let crates = script("crates", &ours);
    let counted: Vec<_> = crates.lines().map(Weight::read).collect();
    let mut each = Table::new("features", "", &ours).text(FEATURES);
    for (what, unit, value) in ROWS {
        let of = |name: &str, weights: &[Weight]| {
            let weight = weights.iter().find(|weight| weight.name == name)?;
            Some(value(weight)).filter(|value| *value > 0.0)
        };
        let cells = ours.iter().map(|name| {
            let value = match unit {
                Unit::Count => of(name, &counted),
                _ => of(name, &built),
            };
            value.map_or(Cell::Nothing, |value| Cell::Measured {
                value: Figure::of(&[value]),
                ratio: None,
            })
        });
        each.row(what, unit, cells.collect());
    }
    Chapter {
        suite: "weight".into(),
        title: "Weight".into(),
        text: TEXT.into(),
        tables: vec![beside, each.of_ours()],
        plots: Vec::new(),
    }
}

const TEXT: &str = "\
The README's first program, and the same program with each peer: a pool, TLS that is verified, and the titles of all books. All in release, \
with the versions of this repository. Crates that run only while a program is built count too. What several programs need is compiled once; the \
time is that of the processors for all that a program needs, as from nothing; in a run of all suites they are shared with those that wait for most of \
their time. The size is without symbols. Diesel's libpq, and the OpenSSL that it \
brings, are the system's, and are not in its figures.

We are heavier than the peers that we stand beside: the pool, the driver, the URL's parser, the checks and the retries of this crate come on top of \
diesel-async and tokio-postgres, which a program of ours has too. What each crate is for is in [weight.md](weight.md).";

const FEATURES: &str = "\
The same program with one feature each, of which it uses nothing; `all` are all of them together. Times and sizes beside the default's take \
long, and are there once `SUITE=weight make bench` has run this suite alone.";

/// The names of the programs, as a reader knows them and as `scripts/weight` does.
const PROGRAMS: [(&str, &str); 6] = [
    ("diesel-neon", "default"),
    ("bb8, diesel-async", "stock"),
    ("deadpool, diesel-async", "deadpool"),
    ("deadpool-postgres", "deadpool_postgres"),
    ("sqlx", "sqlx"),
    ("r2d2, libpq", "libpq"),
];
/// With each feature.
const ALL: &str = "all";

type Value = fn(&Weight) -> f64;
const ROWS: [(&str, Unit, Value); 3] = [
    ("crates", Unit::Count, |weight| weight.crates),
    ("processor time", Unit::Seconds, |weight| weight.seconds),
    ("size", Unit::Bytes, |weight| weight.bytes),
];

struct Weight {
    name: String,
    crates: f64,
    /// Zero, as the size is, of what was not built.
    seconds: f64,
    bytes: f64,
}

impl Weight {
    /// Reads a line of the script's.
    fn read(line: &str) -> Self {
        let mut values = line.split(' ');
        let name = values.next().unwrap_or_default().to_owned();
        let mut number = || values.next().map(|value| value.parse().expect("a number"));
        Self {
            name,
            crates: number().expect("crates"),
            seconds: number().unwrap_or_default(),
            bytes: number().unwrap_or_default(),
        }
    }
}

/// Returns what `scripts/weight` prints.
fn script(how: &str, programs: &[&str]) -> String {
    // The suites beside this one come first.
    let mut script = Command::new("nice");
    script.args(["-n", "19"]);
    script.arg(stand_in::repository().join("scripts/weight"));
    script.arg(how).args(programs);
    let output = script.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = output.output().expect("scripts/weight runs");
    assert!(output.status.success(), "scripts/weight {how}");
    String::from_utf8(output.stdout).expect("text")
}
