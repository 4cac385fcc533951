//! What fails when the compute has been suspended, and how long the rest takes.

mod cycle;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use neon_sim::NeonSim;

use self::cycle::{Cycle, Stage, Turns, Way, live};
use super::broken::Addresses;
use super::broken::Behaviour::{Falters, LeadsTo};
use super::{on_runtime, turns};
use crate::each_pool_and_pythons;
use crate::plot::{Bars, Group};
use crate::pools::{Configuration, names_with_pythons};
use crate::report::{Chapter, PlotFile, Table, Unit};
use crate::stand_in;
use crate::stats::percentile;

const CYCLES: usize = 20;
/// From one burst to the next, of all arms: a burst works for less than that. They wait equally long for the compute to wake,
/// so that their work does not meet.
const TURN: Duration = Duration::from_millis(85);
/// Longer than any pool trusts a connection without a check.
const REST: Duration = Duration::from_millis(600);
/// An arm rests longer by this for each that is before it, so that their order is another in each cycle.
const LONGER: Duration = Duration::from_millis(30);

/// What happens on one compute, one way after the other. Where callers wait for a long time, others need not wait for them; and
/// with that many arms there is hardly a turn that nobody takes.
const COMPUTES: [&[Way]; 5] = [
    &[Way::Terminated, Way::Closed],
    &[Way::Reset, Way::Late],
    &[Way::Silent],
    &[Way::Refused],
    &[Way::Addresses],
];

pub fn run() -> Chapter {
    on_runtime(async {
        let arms = arms();
        let computes = arms.iter().flat_map(|_| COMPUTES);
        let sims = join_all(computes.map(sim)).await;
        let mut sims = sims.into_iter();
        let turns = Arc::new(Turns::new(TURN));
        let all = arms.iter().enumerate().map(|(number, arm)| {
            let sims = sims.by_ref().take(COMPUTES.len());
            let stages = COMPUTES.iter().zip(sims).map(|(ways, sim)| Stage {
                neon: sim.0,
                addresses: sim.1,
                ways,
                configuration: arm.configuration,
                turns: Arc::clone(&turns),
                rests: rests(number, arms.len()),
            });
            // Tasks of their own, so that they use both workers.
            let living: Vec<_> = stages
                .map(|stage| tokio::spawn((arm.live)(stage)))
                .collect();
            async {
                let lived = join_all(living).await.into_iter();
                lived.flat_map(|lived| lived.expect("no panic")).collect()
            }
        });
        let lived = join_all(all).await;
        chapter(&arms, &lived)
    })
}

/// What each arm lived through.
type Lived = Vec<(Way, Vec<Cycle>)>;

/// A pool in one of its configurations.
struct Arm {
    /// Which of the pools.
    pool: usize,
    configuration: Configuration,
    live: fn(Stage) -> BoxFuture<'static, Lived>,
}

/// Returns each pool as it comes, and those set up that have a setting that matters here.
fn arms() -> Vec<Arm> {
    type Live = fn(Stage) -> BoxFuture<'static, Lived>;
    let all: Vec<Live> = each_pool_and_pythons!(P => {
        let live: Live = |stage| Box::pin(live::<P>(stage));
        live
    });
    let arms = CONFIGURATIONS.into_iter().flat_map(|configuration| {
        let is_one =
            move |pool: &usize| configuration == Configuration::Default || SET_UP.contains(pool);
        let of_pool = move |(pool, live)| Arm {
            pool,
            configuration,
            live,
        };
        all.clone()
            .into_iter()
            .enumerate()
            .filter(move |(pool, _)| is_one(pool))
            .map(of_pool)
    });
    arms.collect()
}

const CONFIGURATIONS: [Configuration; 2] = [Configuration::Default, Configuration::Serverless];

/// bb8, deadpool, deadpool-postgres, asyncpg and SQLAlchemy. sqlx gains nothing, and mobc has no connection to check.
const SET_UP: [usize; 5] = [1, 2, 4, 6, 7];

/// Returns how long an arm rests in each cycle.
fn rests(arm: usize, arms: usize) -> Vec<Duration> {
    let rest = |cycle| {
        let place = turns(cycle, arms).iter().position(|one| *one == arm);
        REST + LONGER * place.unwrap_or_default() as u32
    };
    (0..CYCLES).map(rest).collect()
}

/// A compute of an arm's own. The proxy does not try again by itself to wake it: that takes longer than the callers wait.
async fn sim(ways: &[Way]) -> (Arc<NeonSim>, Option<Addresses>) {
    let builder = stand_in::builder().never_suspend().wake_retries(0);
    let neon = builder.start().await.expect("the stand-in for Neon starts");
    neon.sql(stand_in::SCHEMA).await.expect("tables");
    let addresses = match ways.contains(&Way::Addresses) {
        true => {
            let dozen = [vec![Falters(neon.port()); 11], vec![LeadsTo(neon.port())]];
            Some(Addresses::new(&dozen.concat()).await)
        }
        false => None,
    };
    (Arc::new(neon), addresses)
}

fn chapter(arms: &[Arm], lived: &[Lived]) -> Chapter {
    let names = names_with_pythons();
    let mut failed = Table::new("failed", "", &names)
        .text("Requests that failed, of all that a pool was asked for:");
    let mut first = Table::new("first answer", "", &names).text(FIRST);
    let mut late = Table::new("p99", "", &names)
        .text("The 99th percentile of the answers that came, in such a burst:");
    let mut opened =
        Table::new("connections", "", &names).text("Connections that such a burst opened:");
    let mut plots = Vec::new();
    for configuration in CONFIGURATIONS {
        let how = match configuration {
            Configuration::Serverless => "set up",
            _ => "as it comes",
        };
        let mut groups = Vec::new();
        for way in Way::ALL {
            let of_pools: Vec<_> = (0..names.len())
                .map(|pool| of_pool(arms, lived, pool, configuration, way))
                .collect();
            let failures = of_pools.iter().map(|cycles| {
                let failed: f64 = cycles.iter().map(|cycle| cycle.failed as f64).sum();
                (!cycles.is_empty()).then_some(failed)
            });
            let failures: Vec<Option<f64>> = failures.collect();
            let all = CYCLES * way.callers();
            // A picture has all pools; what a table has once is not counted twice.
            let shares = failures
                .iter()
                .map(|failed| Some((*failed)? * 100.0 / all as f64));
            groups.push((way.name().to_owned(), shares.collect()));
            let is_shown = |pool: usize| {
                configuration == Configuration::Default || pool == 0 || SET_UP.contains(&pool)
            };
            let what = format!("{}; {how}", way.words());
            let shown = failures.iter().enumerate();
            let shown = shown.map(|(pool, failed)| failed.filter(|_| is_shown(pool)));
            let shown: Vec<_> = shown.collect();
            failed.counted(&format!("{what}: of {all}"), Unit::Failures, &shown);
            let rounds = |value: fn(&Cycle) -> Option<f64>| -> Vec<Vec<f64>> {
                let cycles = |pool: usize| of_pools[pool].iter().filter(move |_| is_shown(pool));
                let pools = 0..of_pools.len();
                pools
                    .map(|pool| cycles(pool).filter_map(value).collect())
                    .collect()
            };
            let earliest = |cycle: &Cycle| cycle.answers.iter().copied().reduce(f64::min);
            first.measured(&what, Unit::Seconds, &rounds(earliest));
            let last = |cycle: &Cycle| percentile(&mut cycle.answers.clone(), 0.99);
            late.measured(&what, Unit::Seconds, &rounds(last));
            // One that serves nobody opens none.
            let connections =
                |cycle: &Cycle| (!cycle.answers.is_empty()).then_some(cycle.opened as f64);
            opened.measured(&what, Unit::Count, &rounds(connections));
        }
        plots.push(plot(configuration, &names, &groups));
    }
    Chapter {
        suite: "suspension".into(),
        title: "After a suspension".into(),
        text: TEXT.into(),
        tables: vec![failed, first, late, opened],
        plots,
    }
}

/// Returns the cycles of a pool in a configuration, or in the only one that it has.
fn of_pool<'a>(
    arms: &[Arm],
    lived: &'a [Lived],
    pool: usize,
    configuration: Configuration,
    way: Way,
) -> &'a [Cycle] {
    let of_pool = arms.iter().zip(lived).filter(|(arm, _)| arm.pool == pool);
    let ordered = of_pool.min_by_key(|(arm, _)| arm.configuration != configuration);
    let (_, lived) = ordered.expect("an arm of each pool");
    let cycles = lived.iter().find(|(one, _)| *one == way);
    &cycles.expect("cycles of each way").1
}

fn plot(configuration: Configuration, names: &[&str], groups: &[Group]) -> PlotFile {
    let (file, title) = match configuration {
        Configuration::Serverless => (
            "suspension-failed-set-up",
            "Failed requests after a suspension, the peers set up for it",
        ),
        _ => (
            "suspension-failed",
            "Failed requests after a suspension, all pools as they come",
        ),
    };
    let path = format!("benchmarks/{file}.svg");
    let bars = Bars {
        title,
        y: "failed, %",
        names,
        groups,
    };
    let written = bars.write(&stand_in::repository().join("docs").join(&path));
    written.expect("a picture is written");
    let alt = format!("{title}: bars of each pool, by how the connections died.");
    PlotFile { path, alt }
}

const FIRST: &str = "\
The time until the first answer, in the bursts that had one. A peer without a ratio answered nobody in some, and is no faster for it:";

const TEXT: &str = "\
A pool has ten connections, all used. After a rest the compute is suspended, and then 50 callers look a book up at once, each of whom \
may wait three seconds; who has no answer half a second later has failed too, since not every pool's patience covers its check. The next \
connection wakes the compute, which takes 0.4 s. A pool lives through 20 such cycles; one that has failed is replaced. Each arm has \
computes of its own. All arms live at the same time, but their bursts begin one after another, in another order in every cycle.

The connections die as direct ones do on Neon (57P01, then they are closed), as pooled ones do (closed without a word, behind PgBouncer), \
by a reset, or in silence, when what lies between forgets them: no byte comes back. In *refused wake-ups* they end with 57P01, and for \
half a second whoever connects is told that the endpoint is temporarily unavailable. In *a late answer* nothing dies: five callers come to \
five idle connections of a new pool, of which one, a busy one until then, answers after 0.4 s. In *one of twelve addresses left* the host has \
a dozen addresses, all of which lead to the server, until the suspension has eleven of them, the first among them, accept and say nothing. \
sqlx and Python's pools cannot have several addresses. *Set up* is a peer with the limits and \
checks that it has: deadpool's time-outs, deadpool-postgres's check as well, SQLAlchemy's `pool_pre_ping`, asyncpg's `command_timeout` for both, which ends any statement after a second, and for bb8 a \
`RecyclingMethod::CustomFunction` of diesel-async's that asks for no longer than a second. sqlx's users can end a check in `before_acquire`: the pool \
then closes the connection, and over rustls waits for the silent server with that. So sqlx and mobc have nothing to set that would matter here, and \
no figures in the rows of those that have; ours has only one way to be, and the same figures in both.

A pool that checks what it hands out survives each death that the socket tells of. SQLAlchemy learns of it as it comes from the first \
statement that fails, one for all its connections. Silence takes a limit on the check, and one that is \
short beside the caller's patience. Where the limit is that of a statement, each dead connection costs a caller. A refused wake-up takes another try. Of several addresses tokio-postgres takes \
one after another, and waits for the first as long as it is silent. A late answer must not cost a connection: what is opened for it \
is a connection too many, if also one that a caller is served by sooner.

mobc keeps no connection here: diesel-async's manager tells it of every connection that works that it is broken. So it opens one for each \
request, and has none that could die or be late. Python's pools are in a process of their own, one for each compute, and are asked through a pipe.\
";
