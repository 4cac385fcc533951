//! What is measured, a chapter each.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::report::Chapter;

mod addresses;
mod checkout;
mod dial;
mod fleet;
mod flights;
mod habits;
mod relay;
mod rest;
mod server;
mod statements;
mod suspension;
mod websocket;
mod weight;
mod words;

#[path = "../../tests/common/addresses.rs"]
mod broken;

/// What the example's files expect at the root.
pub use self::server::example::{App, Db, extract, problem};

/// A suite: its name, and what runs it.
pub struct Suite {
    pub name: &'static str,
    pub run: fn() -> Chapter,
    pub when: When,
}

/// When a suite runs.
#[derive(Clone, Copy, PartialEq)]
pub enum When {
    Alone,
    /// Beside others of the kind: it waits nearly all the time; or works only where nobody else does, and takes the time of
    /// the processor.
    Beside,
    /// If it is named: it takes too long for the others.
    Named,
}

/// In the order of the page.
pub const ALL: &[Suite] = &[
    Suite {
        name: "suspension",
        run: suspension::run,
        when: When::Alone,
    },
    Suite {
        name: "habits",
        run: habits::run,
        when: When::Alone,
    },
    Suite {
        name: "rest",
        run: rest::run,
        when: When::Beside,
    },
    Suite {
        name: "fleet",
        run: fleet::run,
        when: When::Alone,
    },
    Suite {
        name: "words",
        run: words::run,
        when: When::Alone,
    },
    Suite {
        name: "addresses",
        run: addresses::run,
        when: When::Beside,
    },
    Suite {
        name: "flights",
        run: flights::run,
        when: When::Beside,
    },
    Suite {
        name: "statements",
        run: statements::run,
        when: When::Alone,
    },
    Suite {
        name: "checkout",
        run: checkout::run,
        when: When::Alone,
    },
    Suite {
        name: "websocket",
        run: websocket::run,
        when: When::Alone,
    },
    Suite {
        name: "server",
        run: server::run,
        when: When::Alone,
    },
    Suite {
        name: "weight",
        run: weight::run,
        when: When::Beside,
    },
    Suite {
        name: "features",
        run: weight::features,
        when: When::Named,
    },
];

/// Runs a part of a suite that has a process to itself, such as one whose instructions are counted.
pub fn run_part(part: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    match (part, arguments) {
        ("checkout", [work, arm, crowds]) => checkout::run_part(work, arm, crowds),
        (fleet::PART, _) => fleet::run_part(arguments),
        ("server", [arm, configuration]) => server::run_part(arm, configuration),
        (statements::PART, _) => statements::run_part(arguments),
        _ => return Err("it takes no arguments: SUITE=checkout,words names the suites".into()),
    }
    Ok(())
}

/// Returns the order in which so many arms take their turns in a round: each round has another, so that no arm always comes
/// behind the same one.
fn turns(round: usize, arms: usize) -> Vec<usize> {
    let mut turns: Vec<_> = (0..arms).collect();
    turns.sort_by_key(|arm| {
        let mut hasher = DefaultHasher::new();
        (round, arm).hash(&mut hasher);
        hasher.finish()
    });
    turns
}

/// Says where a suite's time goes.
fn tell(part: &str, began: Instant) {
    eprintln!("  {part}: {:.0} s", began.elapsed().as_secs_f64());
}

/// Runs a suite's future on the runtime that the suites have in common: two workers, as on the smallest machines.
fn on_runtime<T>(suite: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { timeout(HANG, suite).await })
        .unwrap_or_else(|_| panic!("no end within {HANG:?}"))
}

/// Longer than the longest suite takes on a machine that is ten times as slow.
const HANG: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_dozen_rounds_each_arm_comes_first_and_behind_each_other() {
        for arms in 2..=7 {
            let rounds: Vec<_> = (0..12 * arms).map(|round| turns(round, arms)).collect();
            for (arm, other) in (0..arms).flat_map(|arm| (0..arms).map(move |other| (arm, other))) {
                let is_behind =
                    |turns: &Vec<usize>| turns.windows(2).any(|two| two == [other, arm]);
                assert!(
                    arm == other || rounds.iter().any(is_behind),
                    "{arm} behind {other}"
                );
                assert!(rounds.iter().any(|turns| turns[0] == arm), "{arm}");
            }
        }
    }
}
