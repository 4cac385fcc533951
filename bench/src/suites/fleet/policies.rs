//! What the pools of a fleet do: this crate's, by its own code, and models of its peers.

#[allow(dead_code)]
#[path = "../../../../src/util/backoff.rs"]
mod backoff;
#[allow(dead_code)]
#[path = "../../../../src/pool/lifetime.rs"]
mod lifetime;
#[allow(dead_code)]
#[path = "../../../../src/pool/queue/limits.rs"]
mod limits;

use std::time::Duration;

use diesel_neon::Policy;

pub(crate) use self::limits::{Demand, Limits};

/// What one pool does.
#[derive(Clone, Debug)]
pub struct Habits {
    pub limits: Limits,
    /// How long a caller waits.
    pub patience: Duration,
    pub lifetime: Lifetime,
    pub idle_timeout: Option<Duration>,
    /// From one look at the idle connections to the next.
    pub sweep: Option<Duration>,
    /// Whether the age of a connection is looked at when it is handed out, too.
    pub asks_age_on_checkout: bool,
    /// Whether the connection that was used last is handed out first.
    pub last_in_first_out: bool,
    pub refusal: Refusal,
}

#[derive(Clone, Copy, Debug)]
pub enum Lifetime {
    Endless,
    /// All connections have the same.
    Fixed(Duration),
    /// Ours.
    Drawn(Duration),
}

impl Lifetime {
    pub fn draw(self) -> Duration {
        match self {
            Self::Endless => Duration::MAX,
            Self::Fixed(lifetime) => lifetime,
            Self::Drawn(most) => lifetime::of_one(most),
        }
    }
}

/// What is done about an attempt that is refused.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// Ours: another attempt within the budget; the failures of a pool count together.
    Backoff { budget: Duration },
    /// Another attempt after a pause that doubles from the first to the longest, for so long.
    Doubling {
        first: Duration,
        longest: Duration,
        budget: Duration,
    },
    /// Another attempt after always the same pause, for as long as anybody waits.
    Fixed(Duration),
    /// The caller is told.
    Told,
}

impl Refusal {
    /// Returns the pause before another attempt of a connect that has been `under_way` for so long; `failures` came before
    /// this one.
    pub fn pause(self, failures: u32, under_way: Duration) -> Option<Duration> {
        match self {
            Self::Backoff { budget } => {
                // Each refusal of the simulation is one of a crowd.
                backoff::pause_to_connect(failures, true, budget.saturating_sub(under_way))
            }
            Self::Doubling {
                first,
                longest,
                budget,
            } => {
                let pause = first.saturating_mul(2_u32.saturating_pow(failures));
                (under_way <= budget).then_some(pause.min(longest))
            }
            Self::Fixed(pause) => Some(pause),
            Self::Told => None,
        }
    }
}

/// This crate's pool, with its defaults but for what is set.
pub fn ours(policy: &Policy) -> Habits {
    let sweep = lifetime::sweep_interval(
        policy.idle_timeout(),
        policy.max_lifetime(),
        policy.leak_detection_threshold(),
    );
    Habits {
        limits: limits(
            policy.max_size(),
            policy.max_connecting(),
            policy.min_idle(),
        ),
        patience: policy.checkout_timeout(),
        lifetime: Lifetime::Drawn(policy.max_lifetime()),
        idle_timeout: Some(policy.idle_timeout()),
        sweep: Some(sweep),
        asks_age_on_checkout: true,
        last_in_first_out: true,
        // A proxy that has too many attempts is of the class that is retried for the whole budget.
        refusal: Refusal::Backoff {
            budget: policy.connect_timeout(),
        },
    }
}

/// A model of bb8 0.9 as it comes (`Builder::new`, `PoolInner::add_connection`).
pub fn bb8(max_size: u32, min_idle: u32) -> Habits {
    let patience = Duration::from_secs(30);
    Habits {
        limits: limits(max_size, max_size, min_idle),
        patience,
        lifetime: Lifetime::Fixed(Duration::from_secs(30 * 60)),
        idle_timeout: Some(Duration::from_secs(10 * 60)),
        sweep: Some(Duration::from_secs(30)),
        asks_age_on_checkout: false,
        last_in_first_out: false,
        refusal: Refusal::Doubling {
            first: Duration::from_millis(400),
            longest: patience / 2,
            budget: patience,
        },
    }
}

/// A model of deadpool 0.13 as it comes, with a limit on the wait.
pub fn deadpool(max_size: u32) -> Habits {
    Habits {
        limits: limits(max_size, max_size, 0),
        patience: Duration::from_secs(30),
        lifetime: Lifetime::Endless,
        idle_timeout: None,
        sweep: None,
        asks_age_on_checkout: false,
        last_in_first_out: false,
        refusal: Refusal::Told,
    }
}

/// A model of sqlx 0.9 as it comes (`PoolOptions::new`, `spawn_maintenance_tasks`, `PoolInner::connect`): it tries again after
/// 53300 and 57P03 alone, and Neon's proxy says XX000.
pub fn sqlx(max_size: u32) -> Habits {
    let idle_timeout = Duration::from_secs(10 * 60);
    Habits {
        limits: limits(max_size, max_size, 0),
        patience: Duration::from_secs(30),
        lifetime: Lifetime::Fixed(Duration::from_secs(30 * 60)),
        idle_timeout: Some(idle_timeout),
        sweep: Some(idle_timeout),
        asks_age_on_checkout: true,
        last_in_first_out: false,
        refusal: Refusal::Told,
    }
}

/// A model of what many apps do by themselves: a pool that tells them, and another attempt a second later.
pub fn each_second(max_size: u32) -> Habits {
    Habits {
        refusal: Refusal::Fixed(Duration::from_secs(1)),
        ..sqlx(max_size)
    }
}

fn limits(max_size: u32, max_connecting: u32, min_idle: u32) -> Limits {
    Limits {
        max_size,
        min_idle,
        max_connecting,
        connect: Duration::MAX,
        check: Duration::MAX,
    }
}
