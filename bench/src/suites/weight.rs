//! What a program gets with each pool: crates, time to build, and size.

use std::process::{Command, Stdio};

use crate::report::{Chapter, Table, Unit};
use crate::stand_in;

pub fn run() -> Chapter {
    let (columns, programs): (Vec<_>, Vec<_>) = PROGRAMS.into_iter().unzip();
    let table = table("programs", &columns, &built(&programs));
    chapter("weight", "Weight", TEXT, table)
}

/// Runs the suite of the features.
pub fn features() -> Chapter {
    let features = script("features", &[]);
    let ours = ["default"].into_iter().chain(features.lines()).chain([ALL]);
    let ours: Vec<_> = ours.collect();
    let table = table("features", &ours, &built(&ours)).of_ours();
    chapter("features", "Features", FEATURES, table)
}

fn table(name: &str, columns: &[&str], built: &[Weight]) -> Table {
    let mut table = Table::new(name, "", columns);
    for (what, unit, value) in ROWS {
        let values: Vec<_> = built.iter().map(|weight| Some(value(weight))).collect();
        match unit {
            Unit::Seconds => table.measured_once(what, unit, &values),
            _ => table.counted(what, unit, &values),
        }
    }
    table
}

fn chapter(suite: &str, title: &str, text: &str, table: Table) -> Chapter {
    Chapter {
        suite: suite.into(),
        title: title.into(),
        text: text.into(),
        tables: vec![table],
        plots: Vec::new(),
    }
}

fn built(programs: &[&str]) -> Vec<Weight> {
    let figures = script("figures", programs);
    figures.lines().map(Weight::read).collect()
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
The [program of the default features](#weight), with one feature each, of which it uses nothing; `all` are all of them together. Compare with the default's \
column: what else the machine did then has hit all of them alike. It takes half an hour, so that a run of all suites leaves it out, and leaves these \
figures as they are.";

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
    crates: f64,
    seconds: f64,
    bytes: f64,
}

impl Weight {
    /// Reads a line of the script's.
    fn read(line: &str) -> Self {
        // Its name is the first.
        let mut values = line.split(' ').skip(1);
        let mut number = || values.next().and_then(|value| value.parse().ok());
        let mut number = || number().expect("a number");
        Self {
            crates: number(),
            seconds: number(),
            bytes: number(),
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
