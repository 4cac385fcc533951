//! [`Pipelining`]: how much may be sent behind a request that is unanswered. A pooler that knows no pipelines, as PgBouncer before
//! 1.21, takes the server back at each ReadyForQuery, also in the middle of a request, and puts what another client sends into it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes a session may have unanswered, if they are of several requests; shared by the sessions of a pool.
#[derive(Debug)]
pub(crate) struct Pipelining(AtomicU64);

impl Pipelining {
    /// Notes whether a session keeps its server until all its requests are answered; none if that is not known.
    pub(crate) fn set_keeps_server(&self, keeps_server: Option<bool>) {
        let most = match keeps_server {
            Some(true) => u64::MAX,
            Some(false) => 0,
            None => UNKNOWN,
        };
        self.0.store(most, Ordering::Relaxed);
    }

    /// Returns whether a request of `len` bytes may be sent behind so many that are `unanswered`.
    pub(super) fn allows(&self, unanswered: u64, len: usize) -> bool {
        unanswered.saturating_add(len as u64) <= self.0.load(Ordering::Relaxed)
    }
}

impl Default for Pipelining {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

/// As long as it is not known: what a TCP segment has room for, the probe included, so that the pooler gets all of it at once. IPv6
/// carries packets of 1,280 bytes everywhere.
const UNKNOWN: u64 = 1_150;
