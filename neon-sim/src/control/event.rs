//! What happens to the compute, and how its sessions end.

use std::time::Duration;

/// How the sessions of a suspended compute end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspension {
    /// As on Neon: direct sessions get `57P01` and are closed, pooled ones are just closed.
    #[default]
    Normal,
    /// The connections are reset.
    Reset,
    /// The connections stay open, but are never answered again.
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
        /// How many sessions there were.
        sessions: usize,
    },
    /// The compute has begun to wake, for a connection or on request.
    Waking,
    /// A try to wake the compute has failed, on request.
    #[non_exhaustive]
    WakeFailed {
        /// The control plane's words; the client is told those of the last try.
        message: String,
    },
    /// The compute is awake.
    #[non_exhaustive]
    Woken {
        /// How long it was suspended.
        slept: Duration,
    },
}
