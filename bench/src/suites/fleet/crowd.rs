//! A hundred real pools in four processes, whose one compute goes while they are in use.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use neon_sim::{Event, NeonSim, Suspension};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::turns;
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
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);
const ROUNDS: usize = 2;

/// The name of the part.
pub const CROWD: &str = "crowd";

/// What a caller met with since the suspension began.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Met {
    failed: u64,
    /// When each of its answers came, in seconds since then.
    answers: Vec<f64>,
}

/// What all processes of an arm met with.
struct Seen {
    attempts: u64,
    refused: u64,
    asked: u64,
    failed: u64,
    unserved: usize,
    last: Option<f64>,
    median: Option<f64>,
}

pub async fn table() -> Table {
    let mut arms = Vec::new();
    for arm in 0..NAMES.len() {
        arms.push(Arm::start(arm).await);
    }
    let mut seen: [Vec<Seen>; NAMES.len()] = Default::default();
    for round in 0..ROUNDS {
        for arm in turns(round, NAMES.len()) {
            seen[arm].push(arms[arm].seen().await);
        }
    }
    let mut table = Table::new("crowd", "", &NAMES).text(TEXT);
    let mut row = |what: &str, unit, value: fn(&Seen) -> Option<f64>| {
        let of_arm = |seen: &Vec<Seen>| seen.iter().filter_map(value).collect();
        let rounds = seen.each_ref().map(of_arm);
        table.measured(what, unit, &rounds);
    };
    row("attempts", Unit::Count, |seen| Some(seen.attempts as f64));
    row("attempts that the proxy refused", Unit::Count, |seen| {
        Some(seen.refused as f64)
    });
    row("requests that failed, of all", Unit::Share, |seen| {
        Some(seen.failed as f64 / seen.asked as f64)
    });
    row("requests that failed", Unit::Failures, |seen| {
        Some(seen.failed as f64)
    });
    row(
        "callers without an answer in time",
        Unit::Failures,
        |seen| Some(seen.unserved as f64),
    );
    // A pool that serves nobody is not the fastest.
    row(
        "half of the callers are served after",
        Unit::Seconds,
        |seen| seen.median,
    );
    row("the last caller is served after", Unit::Seconds, |seen| {
        seen.last
    });
    table
}

/// The pools of one kind, which rest while others are watched.
struct Arm {
    neon: NeonSim,
    children: Vec<Child>,
}

impl Arm {
    async fn start(arm: usize) -> Self {
        let neon = stand_in::builder()
            .never_suspend()
            .cold_start(COLD_START)
            .limit_attempts();
        let neon = neon.start().await.expect("the stand-in for Neon starts");
        neon.sql(stand_in::SCHEMA).await.expect("tables");
        let (url, number) = (neon.pooled_url(), arm.to_string());
        let start = |_| Child::start(&[CROWD, &number], &url);
        let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
        for child in &mut children {
            let () = child.told().await;
        }
        Self { neon, children }
    }

    async fn order(&mut self, order: &str) {
        join_all(self.children.iter_mut().map(|child| child.order(order))).await;
    }

    /// Has the pools be used, and suspends their compute.
    async fn seen(&mut self) -> Seen {
        self.order("use").await;
        sleep(BEFORE).await;
        let mut events = self.neon.events();
        let (before, began) = (self.neon.counters().pooled, Instant::now());
        self.order("suspending").await;
        let woken = async {
            loop {
                match events.recv().await.expect("the stand-in runs") {
                    Event::Woken { .. } => return began.elapsed().as_secs_f64(),
                    _ => continue,
                }
            }
        };
        let told = join_all(self.children.iter_mut().map(Child::told::<Vec<Met>>));
        let ((), woken, met) = tokio::join!(
            self.neon.suspend(Suspension::Normal),
            timeout(AFTER, woken),
            told
        );
        // Where nobody wakes it, nobody is served.
        let woken = woken.unwrap_or(f64::INFINITY);
        let after = self.neon.counters().pooled - before;
        let met: Vec<Met> = met.into_iter().flatten().collect();
        // Only a new connection answers then.
        let first = |met: &Met| met.answers.iter().copied().find(|at| *at >= woken);
        let mut served: Vec<f64> = met.iter().filter_map(first).collect();
        let failed = met.iter().map(|met| met.failed).sum();
        let answers: usize = met.iter().map(|met| met.answers.len()).sum();
        Seen {
            attempts: after.attempts,
            // A connection may belong to an attempt from before.
            refused: after.attempts.saturating_sub(after.connections),
            asked: failed + answers as u64,
            failed,
            unserved: met.len() - served.len(),
            last: percentile(&mut served, 1.0),
            median: percentile(&mut served, 0.5),
        }
    }
}

/// Uses the pools of one process when it is told to, each time until the compute has been suspended for a while.
pub fn run_part(arm: &str) {
    let parts: [fn(); NAMES.len()] = each_pool!(P => use_pools::<P>);
    parts[arm.parse::<usize>().expect("a number")]();
}

fn use_pools<P: Pool>() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut pools = Vec::new();
        for _ in 0..POOLS {
            let settings = Settings {
                configuration: Configuration::Default,
                max_size: MAX_SIZE,
                patience: PATIENCE,
            };
            let pool = P::build(&count::url(), settings).await;
            pool.look_up(1).await.expect("a book");
            pools.push(pool);
        }
        tell(&());
        loop {
            next_order().await;
            let scene = Arc::new(Scene::default());
            let callers = pools.iter().flat_map(|pool| vec![pool.clone(); CALLERS]);
            let calls: JoinSet<Met> = callers.map(|pool| call(pool, Arc::clone(&scene))).collect();
            next_order().await;
            scene.suspended.get_or_init(Instant::now);
            sleep(AFTER).await;
            scene.is_over.store(true, Ordering::Relaxed);
            tell(&calls.join_all().await);
        }
    });
}

/// What all callers of a process share.
#[derive(Default)]
struct Scene {
    suspended: OnceLock<Instant>,
    is_over: AtomicBool,
}

/// Looks books up until it is over.
async fn call<P: Pool>(pool: P, scene: Arc<Scene>) -> Met {
    let mut met = Met::default();
    while !scene.is_over.load(Ordering::Relaxed) {
        sleep(PAUSE.mul_f64(fastrand::f64())).await;
        let id = fastrand::i32(1..2000);
        let found = pool.look_up(id).await;
        if let Ok(found) = &found {
            assert_eq!(*found, id, "another book than was looked up");
        }
        match (found, scene.suspended.get()) {
            (Ok(_), Some(suspended)) => met.answers.push(suspended.elapsed().as_secs_f64()),
            (Ok(_), None) => {}
            // The order may come a little later than the suspension, and nothing fails before that.
            (Err(_), _) => met.failed += 1,
        }
    }
    met
}

const TEXT: &str = "\
A hundred real pools in four processes, of up to ten connections each, on the pooled endpoint of a stand-in whose proxy has Neon's limits. \
Ten callers of each pool look a book up, again and again, with 0.7 s in between on average, and may wait ten seconds. In the middle of it \
the compute is suspended, which takes all connections along; the next login wakes it. Counted is from then on, for four seconds and until \
each caller's last request is over, twice; a request whose statement was under way is among those that failed. Each pool is as it comes. What takes \
time is that two cores do the handshakes of all: a pool that makes four at once serves its callers with these, and needs fewer. mobc has \
diesel-async's manager, which tells it of every connection that it is broken, so that each request is a login. Ours may lose a request, as \
it does not ask a connection that it has heard of within half a second; whoever asks every time loses nothing here, and waits a round trip \
every time:";
