//! What happens to the compute, and how its sessions end.

use std::time::Duration;

/// How the sessions of a suspended compute end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspension {
    /// As Neon does it: direct sessions are told (`57P01`) and closed, pooled ones just closed.
    #[default]
    Normal,
    /// The connections are reset.
    Reset,
    /// The connections stay open, but nothing ever answers.
    Silent,
}

/// Something that has happened to the compute.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The compute has been suspended.
    #[non_exhaustive]
    Suspended {
        /// How its sessions ended.
        suspension: Suspension,
        /// How many there were.
        sessions: usize,
    },
    /// A connection has made the compute wake.
    Waking,
    /// A try to wake the compute has failed, as was asked for.
    #[non_exhaustive]
    WakeFailed {
        /// The control plane's words; the client is told those of the last try.
        message: String,
    },
    /// The compute is awake.
    #[non_exhaustive]
    Woken {
        /// How long it has slept.
        slept: Duration,
    },
}
