//! A hundred real pools in four processes, whose one compute goes while they are in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use neon_sim::Suspension;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::children::{Child, next_order, tell};
use super::neon::COLD_START;
use crate::count;
use crate::each_pool;
use crate::pools::{Configuration, NAMES, Pool, Settings};
use crate::report::{Table, Unit};
use crate::stand_in;
use crate::stats::percentile;

const PROCESSES: usize = 4;
const POOLS: usize = 25;
const CALLERS: usize = 10;
const MAX_SIZE: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// From one request of a caller to its next, at most.
const PAUSE: Duration = Duration::from_millis(1400);
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(6);

/// The name of the part.
pub const CROWD: &str = "crowd";

/// What the callers of a process met with after the suspension.
#[derive(Debug, Deserialize, Serialize)]
struct Met {
    asked: u64,
    failed: u64,
    /// The seconds until each caller had its first answer; none if it had none in time.
    first_answers: Vec<Option<f64>>,
}

/// What all processes of an arm met with.
struct Seen {
    attempts: u64,
    refused: u64,
    asked: u64,
    failed: u64,
    unserved: usize,
    last: f64,
    median: f64,
}

pub async fn table() -> Table {
    let mut arms = Vec::new();
    for arm in 0..NAMES.len() {
        arms.push(seen(arm).await);
    }
    let mut table = Table::new("crowd", "", &NAMES).text(TEXT);
    let mut row = |what: &str, unit, value: &dyn Fn(&Seen) -> f64| {
        let values: Vec<_> = arms.iter().map(|seen| Some(value(seen))).collect();
        table.counted(what, unit, &values);
    };
    row("attempts", Unit::Count, &|seen| seen.attempts as f64);
    row("attempts that the proxy refused", Unit::Count, &|seen| {
        seen.refused as f64
    });
    row("requests that failed, of all", Unit::Share, &|seen| {
        seen.failed as f64 / seen.asked as f64
    });
    row("requests that failed", Unit::Count, &|seen| {
        seen.failed as f64
    });
    row("callers without an answer in time", Unit::Count, &|seen| {
        seen.unserved as f64
    });
    row(
        "half of the callers are served after",
        Unit::Seconds,
        &|seen| seen.median,
    );
    row("the last caller is served after", Unit::Seconds, &|seen| {
        seen.last
    });
    table
}

async fn seen(arm: usize) -> Seen {
    let neon = stand_in::builder()
        .never_suspend()
        .cold_start(COLD_START)
        .limit_attempts();
    let neon = neon.start().await.expect("the stand-in for Neon starts");
    neon.sql(stand_in::SCHEMA).await.expect("tables");
    let (url, number) = (neon.pooled_url(), arm.to_string());
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|_| Child::start(&[CROWD, &number], &url))
        .collect();
    for child in &mut children {
        let () = child.told().await;
    }
    sleep(BEFORE).await;
    let before = neon.counters().pooled;
    neon.suspend(Suspension::Normal).await;
    join_all(children.iter_mut().map(|child| child.order("suspended"))).await;
    let met: Vec<Met> = join_all(children.iter_mut().map(Child::told)).await;
    let after = neon.counters().pooled - before;
    let answers = met.iter().flat_map(|met| &met.first_answers);
    let mut served: Vec<f64> = answers.copied().flatten().collect();
    let callers = PROCESSES * POOLS * CALLERS;
    Seen {
        attempts: after.attempts,
        refused: after.attempts - after.connections,
        asked: met.iter().map(|met| met.asked).sum(),
        failed: met.iter().map(|met| met.failed).sum(),
        unserved: callers - served.len(),
        last: percentile(&mut served, 1.0),
        median: percentile(&mut served, 0.5),
    }
}

/// Uses the pools of one process, until the compute has been suspended for a while.
pub fn run_part(arm: &str) {
    let parts: [fn(); NAMES.len()] = each_pool!(P => use_pools::<P>);
    parts[arm.parse::<usize>().expect("a number")]();
}

fn use_pools<P: Pool>() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let scene = Arc::new(Scene::default());
        let mut callers = JoinSet::new();
        for _ in 0..POOLS {
            let settings = Settings {
                configuration: Configuration::Default,
                max_size: MAX_SIZE,
                patience: PATIENCE,
            };
            let pool = P::build(&count::url(), settings).await;
            pool.look_up(1).await.expect("a book");
            for _ in 0..CALLERS {
                callers.spawn(call(pool.clone(), Arc::clone(&scene)));
            }
        }
        tell(&());
        next_order().await;
        scene.suspended.get_or_init(Instant::now);
        sleep(AFTER).await;
        let first_answers = scene.first_answers.lock().expect("no panic").clone();
        let unserved = POOLS * CALLERS - first_answers.len();
        let answered = first_answers.into_iter().map(Some);
        tell(&Met {
            asked: scene.asked.load(Ordering::Relaxed),
            failed: scene.failed.load(Ordering::Relaxed),
            first_answers: answered.chain(vec![None; unserved]).collect(),
        });
        // A caller that panicked would only be missed above.
        while let Some(ended) = callers.try_join_next() {
            ended.expect("no panic");
        }
        next_order().await;
    });
}

/// What all callers of a process share.
#[derive(Default)]
struct Scene {
    suspended: OnceLock<Instant>,
    /// Since then.
    asked: AtomicU64,
    failed: AtomicU64,
    first_answers: Mutex<Vec<f64>>,
}

/// Looks books up for ever.
async fn call<P: Pool>(pool: P, scene: Arc<Scene>) {
    let mut has_answer = false;
    loop {
        sleep(PAUSE.mul_f64(fastrand::f64())).await;
        let id = fastrand::i32(1..2000);
        let began = Instant::now();
        let found = pool.look_up(id).await;
        if let Ok(found) = &found {
            assert_eq!(*found, id, "another book than was looked up");
        }
        let Some(suspended) = scene.suspended.get() else {
            // It may end before this process has heard of the suspension.
            continue;
        };
        scene.asked.fetch_add(1, Ordering::Relaxed);
        if found.is_err() {
            scene.failed.fetch_add(1, Ordering::Relaxed);
        } else if !has_answer && began >= *suspended {
            has_answer = true;
            let waited = suspended.elapsed().as_secs_f64();
            scene.first_answers.lock().expect("no panic").push(waited);
        }
    }
}

const TEXT: &str = "\
A hundred real pools in four processes, of up to ten connections each, on the pooled endpoint of a stand-in whose proxy has Neon's limits. \
Ten callers of each pool look a book up, again and again, with 0.7 s in between on average, and may wait ten seconds. In the middle of it \
the compute is suspended, which takes all connections along; the next login wakes it. Counted are the six seconds from then on; a request \
whose statement was under way is among those that failed. Each pool is as it comes. \
Most of the time until the last caller is served is that of two cores for all handshakes.";
