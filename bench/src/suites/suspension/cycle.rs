//! One cycle of one pool: filled, at rest, suspended, and asked by many at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neon_sim::{EndpointCounters, NeonSim, Suspension};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::pools::{Configuration, Pool, Settings, fill};

/// How an idle pool's connections die, if they do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Terminated,
    Closed,
    Reset,
    Silent,
    Refused,
    Late,
}

impl Way {
    pub const ALL: [Self; 6] = [
        Self::Terminated,
        Self::Closed,
        Self::Reset,
        Self::Silent,
        Self::Refused,
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
            Self::Late => "a late answer",
        }
    }

    /// For a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Terminated => "57P01",
            Self::Closed => "closed, pooled",
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

    fn url(self, neon: &NeonSim) -> String {
        match self {
            Self::Closed => neon.pooled_url(),
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
            Self::Terminated | Self::Closed => neon.suspend(Suspension::Normal).await,
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

const UNAVAILABLE: &str = "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or contact our support.";
const REFUSING: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_millis(400);
/// The one connection that has come so far is the late one.
const FIRST_LATE: u64 = 40;
const LOOK_UPS: u64 = FIRST_LATE + 5;
/// Milliseconds between two look-ups, longer where the machine is busy.
const PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 32];
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_AT_MOST: Duration = Duration::from_millis(3500);

/// What a cycle needs to know.
pub struct Stage {
    pub neon: Arc<NeonSim>,
    pub way: Way,
    pub configuration: Configuration,
    /// Passed when the pools of all arms are filled.
    pub filled: Arc<Barrier>,
    /// From then to the burst.
    pub rest: Duration,
}

/// What a burst met with.
#[derive(Clone, Debug)]
pub struct Cycle {
    pub failed: usize,
    /// The seconds that each answer took.
    pub answers: Vec<f64>,
    pub opened: u64,
}

pub async fn cycle<P: Pool>(stage: Stage) -> Cycle {
    let Stage { neon, way, .. } = &stage;
    let pool = filled::<P>(&stage).await;
    stage.filled.wait().await;
    sleep(stage.rest).await;
    let before = way.counters(neon).connections;
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
    Cycle {
        failed: way.callers() - answers.len(),
        answers,
        opened,
    }
}

async fn filled<P: Pool>(stage: &Stage) -> P {
    let Stage { neon, way, .. } = stage;
    let settings = Settings {
        configuration: stage.configuration,
        max_size: way.connections() as u32,
        patience: PATIENCE,
    };
    let url = way.url(neon);
    for pause in PAUSES {
        let before = way.counters(neon).connections;
        let pool = P::build(&url, settings).await;
        if *way == Way::Late {
            // Each look-up is a round trip at least, and all are the same connection's.
            for _ in 0..LOOK_UPS {
                pool.look_up(1).await.expect("a book");
                // Some pools take a connection back a moment later, and open another for who comes sooner.
                sleep(Duration::from_millis(pause)).await;
            }
            let opened = way.counters(neon).connections - before;
            // A pool that opens one each time has none that could be late.
            if opened > 1 && opened < LOOK_UPS {
                continue;
            }
        }
        fill(&pool, way.connections()).await;
        return pool;
    }
    panic!(
        "{} opens several connections for one caller",
        std::any::type_name::<P>()
    );
}
