//! Which fleets live through the day, and what a reader sees of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use diesel_neon::{Policy, PolicyBuilder};

use super::day::{Day, Job, LENGTH};
use super::policies::{Habits, bb8, deadpool, each_second, ours, sqlx};
use super::simulation::{Fleet, Outcome, live};
use crate::plot::{Line, Lines};
use crate::report::{PlotFile, Table, Unit};
use crate::stand_in;

const INSTANCES: u32 = 10_000;
/// `max_client_conn` of Neon's PgBouncer.
const POOLED: u32 = 10_000;
const DIRECT_INSTANCES: u32 = 1000;
/// `max_connections` of the largest computes, without Neon's own.
const DIRECT: u32 = 3993;
const DIRECT_SIZE: u32 = 3;

const SIX: Duration = Duration::from_secs(6 * 3600);
const ONE: Duration = Duration::from_secs(13 * 3600);

type Arm = (&'static str, Habits);

/// Returns the tables and the pictures of the simulated days.
pub fn simulated() -> (Vec<Table>, Vec<PlotFile>) {
    let one = || Policy::builder().max_size(1);
    let seconds = Duration::from_secs;
    let pooled = vec![
        (NAMES[0], ours(&policy(one()))),
        (NAMES[1], bb8(1, 0)),
        ("of bb8, `min_idle` 1", bb8(1, 1)),
        (NAMES[2], deadpool(1)),
        (NAMES[3], sqlx(1)),
        ("again each second", each_second(1)),
    ];
    let own = vec![
        ("as it comes, `max_size` 1", ours(&policy(one()))),
        (
            "`idle_timeout` 30 s",
            ours(&policy(one().idle_timeout(seconds(30)))),
        ),
        (
            "`idle_timeout` 240 s",
            ours(&policy(one().idle_timeout(seconds(240)))),
        ),
        (
            "`suspend_after` 30 min",
            ours(&policy(one().suspend_after(seconds(1800)))),
        ),
        (
            "`checkout_timeout` 90 s",
            ours(&policy(one().checkout_timeout(seconds(90)))),
        ),
        ("`max_size` 10", ours(&policy(Policy::builder()))),
    ];
    let size = DIRECT_SIZE;
    let direct = vec![
        (NAMES[0], ours(&policy(one().max_size(size)))),
        (NAMES[1], bb8(size, 0)),
        (NAMES[2], deadpool(size)),
        (NAMES[3], sqlx(size)),
    ];
    let fleet = |instances, most_open, arms: &[Arm]| -> Vec<Fleet> {
        let habits = arms.iter().map(|(_, habits)| habits.clone());
        let fleets = habits.map(|habits| Fleet {
            instances,
            most_open,
            habits,
        });
        fleets.collect()
    };
    let mut fleets = fleet(INSTANCES, POOLED, &pooled);
    // The first of them has lived already.
    fleets.extend(fleet(INSTANCES, POOLED, &own[1..]));
    fleets.extend(fleet(DIRECT_INSTANCES, DIRECT, &direct));
    let mut lived = live_all(&fleets);
    let lived_directly = lived.split_off(pooled.len() + own.len() - 1);
    let mut lived_so_set = lived.split_off(pooled.len());
    lived_so_set.insert(0, lived[0].clone());
    let tables = vec![
        table("a day, pooled", POOLED_TEXT, &pooled, &lived),
        table("settings", SETTINGS_TEXT, &own, &lived_so_set).of_ours(),
        table("a day, direct", DIRECT_TEXT, &direct, &lived_directly),
    ];
    (tables, plots(&pooled, &lived))
}

const NAMES: [&str; 4] = ["diesel-neon", "model of bb8", "of deadpool", "of sqlx"];

fn policy(builder: PolicyBuilder) -> Policy {
    builder.build().expect("settings that do not contradict")
}

/// A job at six, when the compute sleeps, and one at one, just when it is restarted.
fn day() -> Day {
    let job = |at, spread| Job {
        at,
        spread: Duration::from_secs(spread),
        requests: 3,
    };
    Day {
        peak: 40.0,
        night: 1.0 / 1800.0,
        jobs: vec![job(SIX, 10), job(ONE, 60)],
        restarts: vec![ONE],
    }
}

/// Lets each fleet live through the day, on both cores.
fn live_all(fleets: &[Fleet]) -> Vec<Outcome> {
    let day = day();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut lived = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(fleet) = fleets.get(number) else {
                return lived;
            };
            lived.push((number, live(fleet, &day)));
        }
    };
    let mut lived = thread::scope(|scope| {
        let other = scope.spawn(worker);
        let mut lived = worker();
        lived.extend(other.join().expect("no panic"));
        lived
    });
    lived.sort_by_key(|(number, _)| *number);
    lived.into_iter().map(|(_, outcome)| outcome).collect()
}

fn table(name: &str, text: &str, arms: &[Arm], lived: &[Outcome]) -> Table {
    let names: Vec<_> = arms.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(name, "", &names).text(text);
    let mut row = |what: &str, unit, value: &dyn Fn(&Outcome) -> Option<f64>| {
        let values: Vec<_> = lived.iter().map(value).collect();
        table.counted(what, unit, &values);
    };
    for (job, (at, what)) in [(SIX, "at six"), (ONE, "at one")].into_iter().enumerate() {
        let from = at.as_secs() as usize;
        let minutes = from..from + 120;
        row(
            &format!("{what}: callers that failed"),
            Unit::Count,
            &|outcome| Some(outcome.jobs[job].failed as f64),
        );
        row(
            &format!("{what}: the last that is served, after"),
            Unit::Seconds,
            &|outcome| Some(outcome.jobs[job].last.as_secs_f64()),
        );
        row(
            &format!("{what}: attempts in two minutes"),
            Unit::Count,
            &|outcome| {
                let attempts: u32 = outcome.attempts[minutes.clone()].iter().sum();
                Some(f64::from(attempts))
            },
        );
        row(
            &format!("{what}: attempts in the busiest second"),
            Unit::Count,
            &|outcome| Some(busiest(&outcome.attempts[minutes.clone()])),
        );
    }
    row(
        "attempts in the busiest second of all others",
        Unit::Count,
        &|outcome| {
            let [six, one] = [SIX, ONE].map(|at| at.as_secs() as usize);
            let seconds = &outcome.attempts;
            let parts = [
                &seconds[..six],
                &seconds[six + 120..one],
                &seconds[one + 120..],
            ];
            parts.into_iter().map(busiest).reduce(f64::max)
        },
    );
    row("attempts all day", Unit::Count, &|outcome| {
        Some(outcome.attempts.iter().map(|n| f64::from(*n)).sum())
    });
    row("of these refused", Unit::Count, &|outcome| {
        Some(outcome.refused as f64)
    });
    row(
        "callers that had to wait, of all",
        Unit::Share,
        &|outcome| Some(outcome.waited as f64 / outcome.arrived as f64),
    );
    row("callers that failed all day", Unit::Count, &|outcome| {
        Some(outcome.failed as f64)
    });
    row("connections open, most", Unit::Count, &|outcome| {
        outcome.open.iter().max().map(|most| f64::from(*most))
    });
    row("connections open, mean", Unit::Count, &|outcome| {
        let sum: f64 = outcome.open.iter().map(|open| f64::from(*open)).sum();
        Some((sum / outcome.open.len() as f64).round())
    });
    row("time suspended", Unit::ShareAsleep, &|outcome| {
        Some(outcome.slept.as_secs_f64() / LENGTH.as_secs_f64())
    });
    table
}

fn busiest(seconds: &[u32]) -> f64 {
    seconds.iter().max().map_or(0.0, |most| f64::from(*most))
}

fn plots(arms: &[Arm], lived: &[Outcome]) -> Vec<PlotFile> {
    let lines = |points: &dyn Fn(&Outcome) -> Vec<(f64, f64)>| -> Vec<Line> {
        let lines = arms.iter().zip(lived).map(|((name, _), outcome)| Line {
            name: name.replace('`', ""),
            points: points(outcome),
        });
        lines.collect()
    };
    let mut open = lines(&|outcome| {
        let minutes = outcome.open.iter().enumerate();
        minutes
            .map(|(minute, open)| (minute as f64 / 60.0, f64::from(*open)))
            .collect()
    });
    // It does not differ from sqlx in this.
    open.truncate(arms.len() - 1);
    let attempts = lines(&|outcome| {
        let from = SIX.as_secs() as usize;
        let seconds = outcome.attempts[from..from + 60].iter().enumerate();
        // A logarithmic axis has no zero.
        seconds
            .map(|(second, n)| (second as f64, f64::from(*n).max(1.0)))
            .collect()
    });
    vec![
        plot(
            "fleet-attempts",
            &Lines {
                title: "Attempts at the proxy: 10,000 instances wake one compute within 10 s",
                x: "seconds after six",
                y: "attempts in a second (1: none)",
                logarithmic: true,
                lines: &attempts,
            },
        ),
        plot(
            "fleet-connections",
            &Lines {
                title: "Connections of 10,000 instances over a day",
                x: "hour",
                y: "connections open",
                logarithmic: false,
                lines: &open,
            },
        ),
    ]
}

fn plot(file: &str, lines: &Lines<'_>) -> PlotFile {
    let path = format!("benchmarks/{file}.svg");
    let written = lines.write(&stand_in::repository().join("docs").join(&path));
    written.expect("a picture is written");
    PlotFile {
        path,
        alt: format!("{}: a line for each pool.", lines.title),
    }
}

const POOLED_TEXT: &str = "\
**A day, simulated.** 10,000 instances of one app, each with a pool of one connection, on the pooled endpoint, which takes 10,000 clients. \
Nearly nobody comes at night. At six, when the compute sleeps, a job begins on all instances within ten seconds, three requests on \
each; from seven to ten at night requests come at random, up to 40 a second from all instances together; at one the compute is \
restarted, and another job begins within a minute:";
const SETTINGS_TEXT: &str = "\
The same day with other settings of ours:";
const DIRECT_TEXT: &str = "\
The same day of 1,000 instances, each with up to three connections, on the direct endpoint of a large compute:";
