//! The cycles of one pool: filled, at rest, suspended, and asked by many at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use neon_sim::{EndpointCounters, NeonSim, Suspension};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::super::broken::Addresses;
use crate::pools::{Configuration, Opens, Pool, Settings, fill};

/// How an idle pool's connections die, if they do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Terminated,
    Closed,
    Reset,
    Silent,
    Refused,
    Addresses,
    Late,
}

impl Way {
    pub const ALL: [Self; 7] = [
        Self::Terminated,
        Self::Closed,
        Self::Reset,
        Self::Silent,
        Self::Refused,
        Self::Addresses,
        Self::Late,
    ];

    /// For a picture.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminated => "57P01",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Silent => "silence",
            Self::Refused => "refused wake-ups",
            Self::Addresses => "1 of 12 left",
            Self::Late => "a late answer",
        }
    }

    /// For a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Terminated => "57P01",
            Self::Closed => "closed, pooled",
            Self::Addresses => "one of twelve addresses left",
            other => other.name(),
        }
    }

    pub fn callers(self) -> usize {
        match self {
            Self::Late => 5,
            _ => 50,
        }
    }

    fn connections(self) -> usize {
        match self {
            Self::Late => 5,
            _ => 10,
        }
    }

    fn url(self, stage: &Stage) -> String {
        let neon = &stage.neon;
        match self {
            Self::Closed => neon.pooled_url(),
            Self::Addresses => {
                let addresses = stage.addresses.as_ref().expect("addresses");
                addresses.url(&neon.url(), &neon.host())
            }
            _ => neon.url(),
        }
    }

    fn counters(self, neon: &NeonSim) -> EndpointCounters {
        match self {
            Self::Closed => neon.counters().pooled,
            _ => neon.counters().direct,
        }
    }

    /// Lets it happen.
    async fn strike(self, neon: &Arc<NeonSim>) {
        match self {
            Self::Terminated | Self::Closed | Self::Addresses => {
                neon.suspend(Suspension::Normal).await
            }
            Self::Reset => neon.suspend(Suspension::Reset).await,
            Self::Silent => neon.suspend(Suspension::Silent).await,
            Self::Refused => {
                neon.suspend(Suspension::Normal).await;
                neon.fail_wakes(u64::MAX, UNAVAILABLE);
            }
            Self::Late => neon.hold_answers(FIRST_LATE),
        }
    }

    /// Ends what does not end by itself.
    async fn relent(self, neon: Arc<NeonSim>) {
        match self {
            Self::Refused => {
                sleep(REFUSING).await;
                neon.clear_faults();
            }
            Self::Late => {
                sleep(LATE).await;
                neon.release_answers();
            }
            _ => {}
        }
    }
}

/// Of a pool that opens 50 connections where others open ten.
const TURNS_OF_MANY: u32 = 3;
const UNAVAILABLE: &str = "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or contact our support.";
const REFUSING: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_millis(400);
/// The one connection that has come so far is the late one.
const FIRST_LATE: u64 = 40;
const LOOK_UPS: u64 = FIRST_LATE + 5;
/// Milliseconds between two look-ups, longer where the machine is busy.
const PAUSES: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_AT_MOST: Duration = Duration::from_millis(3500);

/// What an arm needs to know to live through its cycles.
pub struct Stage {
    pub neon: Arc<NeonSim>,
    /// Twelve that lead to it, for the way that needs them.
    pub addresses: Option<Addresses>,
    pub ways: &'static [Way],
    pub configuration: Configuration,
    pub turns: Arc<Turns>,
    /// From when a pool is filled to its turn, in each cycle.
    pub rests: Vec<Duration>,
}

/// Has the bursts of all arms begin one after another, and keeps most of what else they do apart.
pub struct Turns {
    apart: Duration,
    next: Mutex<Instant>,
    /// Connecting works a processor hard.
    fills: Semaphore,
}

impl Turns {
    pub fn new(apart: Duration) -> Self {
        Self {
            apart,
            next: Mutex::new(Instant::now()),
            fills: Semaphore::new(1),
        }
    }

    /// Waits until it is the caller's, whose burst works for so many turns.
    async fn take(&self, turns: u32) {
        let turn = {
            let mut next = self.next.lock().expect("no panic");
            let turn = (*next).max(Instant::now());
            *next = turn + self.apart * turns;
            turn
        };
        sleep_until(turn.into()).await;
    }
}

/// What a burst met with.
#[derive(Clone, Debug)]
pub struct Cycle {
    pub failed: usize,
    /// The seconds that each answer took.
    pub answers: Vec<f64>,
    pub opened: u64,
}

/// Returns an arm's cycles, of each way in which connections die.
pub async fn live<P: Pool>(stage: Stage) -> Vec<(Way, Vec<Cycle>)> {
    let turns = match P::OPENS {
        Opens::OneForEach => TURNS_OF_MANY,
        _ => 1,
    };
    let mut lived = Vec::new();
    for &way in stage.ways {
        if way == Way::Addresses && !P::TAKES_ADDRESSES {
            lived.push((way, Vec::new()));
            continue;
        }
        let mut cycles = Vec::new();
        let mut pool: Option<P> = None;
        for rest in &stage.rests {
            let filled = filled(&stage, way, pool.take()).await;
            sleep(*rest).await;
            stage.turns.take(turns).await;
            let cycle = burst(&stage, way, &filled).await;
            // One that has failed may not be what it was. One of whose connections one is to be late is new.
            let is_kept = cycle.failed == 0 && way != Way::Late && P::OPENS != Opens::OneForEach;
            if is_kept {
                pool = Some(filled);
            }
            cycles.push(cycle);
        }
        lived.push((way, cycles));
    }
    lived
}

async fn burst<P: Pool>(stage: &Stage, way: Way, pool: &P) -> Cycle {
    let neon = &stage.neon;
    let before = way.counters(neon).connections;
    falter(stage, true);
    way.strike(neon).await;
    let began = Instant::now();
    let relenting = tokio::spawn(way.relent(Arc::clone(neon)));
    let mut callers = JoinSet::new();
    for id in 1..=way.callers() as i32 {
        let pool = pool.clone();
        callers.spawn(async move {
            let found = timeout(PATIENCE_AT_MOST, pool.look_up(id))
                .await
                .ok()?
                .ok()?;
            assert_eq!(found, id, "another book than was looked up");
            Some(began.elapsed().as_secs_f64())
        });
    }
    let answers: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let opened = way.counters(neon).connections - before;
    relenting.await.expect("no panic");
    falter(stage, false);
    Cycle {
        failed: way.callers() - answers.len(),
        answers,
        opened,
    }
}

fn falter(stage: &Stage, silent: bool) {
    if let Some(addresses) = &stage.addresses {
        addresses.falter(silent);
    }
}

/// Returns a pool all of whose connections are there and have been used.
async fn filled<P: Pool>(stage: &Stage, way: Way, kept: Option<P>) -> P {
    let neon = &stage.neon;
    let connections = way.connections();
    let fills = &stage.turns.fills;
    if let Some(pool) = kept {
        let _turn = fills.acquire().await.expect("never closed");
        fill(&pool, connections).await;
        return pool;
    }
    let settings = Settings {
        configuration: stage.configuration,
        max_size: connections as u32,
        patience: PATIENCE,
    };
    let url = way.url(stage);
    'pools: for pause in PAUSES {
        let before = way.counters(neon).connections;
        let pool = P::build(&url, settings).await;
        if P::OPENS == Opens::OneForEach {
            // There is nothing that could be late, or die.
            return pool;
        }
        if way == Way::Late {
            // Each look-up is a round trip at least, and all are the same connection's.
            for _ in 0..LOOK_UPS {
                let Ok(_) = pool.look_up(1).await else {
                    // On a loaded machine, the handshake took longer than a caller waits.
                    continue 'pools;
                };
                // Some pools take a connection back a moment later, and open another for who comes sooner.
                sleep(Duration::from_millis(pause)).await;
            }
            let opened = way.counters(neon).connections - before;
            let usual = match P::OPENS {
                Opens::AllAtOnce => connections as u64,
                _ => 1,
            };
            if opened > usual {
                continue;
            }
        }
        let _turn = fills.acquire().await.expect("never closed");
        fill(&pool, connections).await;
        return pool;
    }
    panic!(
        "{} opens several connections for one caller, or serves none",
        std::any::type_name::<P>()
    );
}
