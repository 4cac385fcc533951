//! What fails when the compute has been suspended, and how long the rest takes.

mod cycle;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use neon_sim::NeonSim;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use self::cycle::{Cycle, Stage, Way, cycle};
use super::on_runtime;
use crate::each_pool;
use crate::plot::Bars;
use crate::pools::{Configuration, NAMES};
use crate::report::{Chapter, PlotFile, Table, Unit};
use crate::stand_in;
use crate::stats::percentile;

const CYCLES: usize = 8;

pub fn run() -> Chapter {
    on_runtime(async {
        let arms = arms();
        let sims: Vec<Arc<NeonSim>> = join_all(arms.iter().map(|_| sim())).await;
        let mut outcomes = Vec::new();
        for way in Way::ALL {
            let mut of_arms = vec![Vec::new(); arms.len()];
            for round in 0..CYCLES {
                for (arm, cycle) in take_turns(&arms, &sims, way, round).await {
                    of_arms[arm].push(cycle);
                }
            }
            outcomes.push((way, of_arms));
        }
        chapter(&arms, &outcomes)
    })
}

/// A pool in one of its configurations.
struct Arm {
    /// Which of [`NAMES`].
    pool: usize,
    configuration: Configuration,
    cycle: fn(Stage) -> BoxFuture<'static, Cycle>,
}

/// Ours has one configuration, the others two.
fn arms() -> Vec<Arm> {
    let cycles: [fn(Stage) -> BoxFuture<'static, Cycle>; 6] =
        each_pool!(P => |stage| Box::pin(cycle::<P>(stage)));
    let mut arms = Vec::new();
    for configuration in CONFIGURATIONS {
        for (pool, &cycle) in cycles.iter().enumerate() {
            if pool > 0 || configuration == Configuration::Default {
                arms.push(Arm {
                    pool,
                    configuration,
                    cycle,
                });
            }
        }
    }
    arms
}

const CONFIGURATIONS: [Configuration; 2] = [Configuration::Default, Configuration::Serverless];

/// A compute of an arm's own. The proxy does not try again by itself to wake it: that takes longer than the callers wait.
async fn sim() -> Arc<NeonSim> {
    let builder = stand_in::builder().never_suspend().wake_retries(0);
    let neon = builder.start().await.expect("the stand-in for Neon starts");
    neon.sql(stand_in::SCHEMA).await.expect("tables");
    Arc::new(neon)
}

/// Has each arm live through one cycle, one a little after the other, in another order each time.
async fn take_turns(
    arms: &[Arm],
    sims: &[Arc<NeonSim>],
    way: Way,
    round: usize,
) -> Vec<(usize, Cycle)> {
    let filled = Arc::new(Barrier::new(arms.len()));
    let mut cycles = JoinSet::new();
    for (arm, neon) in sims.iter().enumerate() {
        let turn = (arm + round * 5) % arms.len();
        let stage = Stage {
            neon: Arc::clone(neon),
            way,
            configuration: arms[arm].configuration,
            filled: Arc::clone(&filled),
            rest: REST + TURN * turn as u32,
        };
        let cycle = (arms[arm].cycle)(stage);
        cycles.spawn(async move { (arm, cycle.await) });
    }
    cycles.join_all().await
}

/// Longer than any pool trusts a connection without a check.
const REST: Duration = Duration::from_millis(700);
/// From one arm's burst to the next's. A burst works for less than that, but for waiting.
const TURN: Duration = Duration::from_millis(200);

fn chapter(arms: &[Arm], outcomes: &[(Way, Vec<Vec<Cycle>>)]) -> Chapter {
    let mut failed = Table::new("failed", "", &NAMES)
        .text("Requests that failed, of all that a pool was asked for:");
    let mut first = Table::new("first answer", "", &NAMES).text("The time until the first answer:");
    let mut late = Table::new("p99", "", &NAMES)
        .text("The 99th percentile of the answers that came, in a burst:");
    let mut opened = Table::new("connections", "", &NAMES).text("Connections that a burst opened:");
    let mut plots = Vec::new();
    for configuration in CONFIGURATIONS {
        let how = match configuration {
            Configuration::Serverless => "set up",
            _ => "as it comes",
        };
        let mut groups = Vec::new();
        for (way, of_arms) in outcomes {
            let of_pools: Vec<_> = (0..NAMES.len())
                .map(|pool| of_pool(arms, of_arms, pool, configuration))
                .collect();
            let failures: Vec<f64> = of_pools
                .iter()
                .map(|cycles| cycles.iter().map(|cycle| cycle.failed as f64).sum())
                .collect();
            let all = CYCLES * way.callers();
            let what = format!("{}; {how}", way.words());
            let counts: Vec<_> = failures.iter().copied().map(Some).collect();
            failed.counted(&format!("{what}: of {all}"), Unit::Count, &counts);
            let rounds = |value: fn(&Cycle) -> Option<f64>| -> Vec<Vec<f64>> {
                let of_pool = |cycles: &&[Cycle]| cycles.iter().filter_map(value).collect();
                of_pools.iter().map(of_pool).collect()
            };
            let earliest = |cycle: &Cycle| cycle.answers.iter().copied().reduce(f64::min);
            first.measured(&what, Unit::Seconds, &rounds(earliest));
            let last = |cycle: &Cycle| {
                let mut answers = cycle.answers.clone();
                (!answers.is_empty()).then(|| percentile(&mut answers, 0.99))
            };
            late.measured(&what, Unit::Seconds, &rounds(last));
            let connections = |cycle: &Cycle| Some(cycle.opened as f64);
            opened.measured(&what, Unit::Count, &rounds(connections));
            let shares = failures.iter().map(|failed| failed * 100.0 / all as f64);
            groups.push((way.name().to_owned(), shares.collect()));
        }
        plots.push(plot(configuration, &groups));
    }
    Chapter {
        suite: "suspension".into(),
        title: "After a suspension".into(),
        text: TEXT.into(),
        tables: vec![failed, first, late, opened],
        plots,
    }
}

/// Returns the cycles of a pool in a configuration.
fn of_pool<'a>(
    arms: &[Arm],
    of_arms: &'a [Vec<Cycle>],
    pool: usize,
    configuration: Configuration,
) -> &'a [Cycle] {
    let is_it = |arm: &Arm| arm.pool == pool && (pool == 0 || arm.configuration == configuration);
    let arm = arms.iter().position(is_it).expect("an arm of each pool");
    &of_arms[arm]
}

fn plot(configuration: Configuration, groups: &[(String, Vec<f64>)]) -> PlotFile {
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
        names: &NAMES,
        groups,
    };
    let written = bars.write(&stand_in::repository().join("docs").join(&path));
    written.expect("a picture is written");
    let alt = format!("{title}: bars of each pool, by how the connections died.");
    PlotFile { path, alt }
}

const TEXT: &str = "\
A pool has ten connections, all used. After a rest the compute is suspended, and then 50 callers look a book up at once, each of whom \
may wait three seconds; who has no answer half a second later has failed too, since not every pool's patience covers its check. The next \
connection wakes the compute, which takes 0.4 s. It is done again with a new pool each time, on a compute of each arm's own, the arms one \
shortly after the other, in another order every time.

The connections die as direct ones do on Neon (57P01, then they are closed), as pooled ones do (closed without a word, behind PgBouncer), \
by a reset, or in silence, when what lies between forgets them: no byte comes back. In *refused wake-ups* they end with 57P01, and for \
half a second whoever connects is told that the endpoint is temporarily unavailable. In *a late answer* nothing dies: five callers come to \
five idle connections, of which one, a busy one until then, answers after 0.4 s. *Set up* is a peer with the limits and checks that it \
has; ours has only one way to be.

A pool that checks what it hands out survives each death that the socket tells of. Silence takes a limit on the check, and one that is \
short beside the caller's patience. A refused wake-up takes another try. A late answer must not cost a connection: what is opened for it \
is a connection too many, if also one that a caller is served by sooner.

mobc keeps no connection here: diesel-async's manager tells it of every connection that works that it is broken. So it opens one for each \
request, and has none that could die or be late.\
";
