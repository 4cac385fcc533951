//! The faults.

use std::fmt;
use std::time::Duration;

use diesel_neon::Pool;
use neon_sim::{NeonSim, Suspension};

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Suspend(Suspension),
    /// The compute is suspended, and fails to wake some times.
    FailWakes(Suspension, u64, &'static str),
    /// The next connections are refused.
    Refuse(u64, &'static str),
    /// The next connections are never answered.
    Hang(u64),
    /// This share of the sessions is terminated.
    Terminate(f64),
    /// The network is slow, in each direction.
    Delay(Duration),
    /// The application asks one of the pools for new connections.
    Invalidate(usize),
}

impl Fault {
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        let suspension = SUSPENSIONS[random.usize(..SUSPENSIONS.len())];
        let message = MESSAGES[random.usize(..MESSAGES.len())];
        match random.u8(0..12) {
            0..=3 => Self::Suspend(suspension),
            4 => Self::FailWakes(suspension, random.u64(1..8), message),
            5 => Self::Refuse(random.u64(1..8), message),
            6 => Self::Hang(random.u64(1..3)),
            7..=8 => Self::Terminate(random.f64()),
            9 => Self::Delay(Duration::from_millis(random.u64(0..4))),
            _ => Self::Invalidate(random.usize(0..2)),
        }
    }

    pub(crate) fn draw_suspension(random: &mut fastrand::Rng) -> Option<Self> {
        let suspension = SUSPENSIONS.get(random.usize(..=SUSPENSIONS.len()));
        suspension.copied().map(Self::Suspend)
    }

    /// Returns whether statements under way are never answered.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(
            self,
            Self::Suspend(Suspension::Silent) | Self::FailWakes(Suspension::Silent, ..)
        )
    }

    pub(crate) async fn bring(&self, neon: &NeonSim, pools: &[Pool]) {
        match self {
            Self::Suspend(suspension) => neon.suspend(*suspension).await,
            Self::FailWakes(suspension, times, message) => {
                neon.fail_wakes(*times, *message);
                neon.suspend(*suspension).await;
            }
            Self::Refuse(times, message) => {
                neon.refuse_connections(*times, *message);
                pools.iter().for_each(Pool::invalidate_all);
            }
            Self::Hang(times) => {
                neon.hang_connections(*times);
                pools.iter().for_each(Pool::invalidate_all);
            }
            Self::Terminate(share) => {
                let terminate = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE usename = 'neondb_owner' AND random() < {share}"
                );
                neon.sql(&terminate)
                    .await
                    .expect("sessions can be terminated");
            }
            Self::Delay(delay) => neon.set_latency(*delay),
            Self::Invalidate(pool) => pools[*pool].invalidate_all(),
        }
    }
}

/// The kind of fault, for the tally.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspend(suspension) => write!(f, "suspended ({suspension:?})"),
            Self::FailWakes(..) => f.write_str("suspended, and failed to wake"),
            Self::Refuse(..) => f.write_str("connections refused"),
            Self::Hang(..) => f.write_str("connections hung"),
            Self::Terminate(..) => f.write_str("sessions terminated"),
            Self::Delay(..) => f.write_str("network slowed"),
            Self::Invalidate(..) => f.write_str("pool invalidated"),
        }
    }
}

const SUSPENSIONS: [Suspension; 3] = [Suspension::Normal, Suspension::Reset, Suspension::Silent];

/// Neon's words for failures that pass.
const MESSAGES: [&str; 3] = [
    "Couldn't connect to compute node",
    "Control plane request failed",
    "Too many connections to this endpoint. Please try again later.",
];
