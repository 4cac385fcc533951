//! [`Stats`]: counters of what a pool has done since it was built.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::evict::EvictReason;
use super::metrics::Metrics;

/// Checks of connections on checkout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Checks {
    /// Connections that were heard from within the policy's `validation_bypass`, so not asked.
    pub skipped: u64,
    /// Connections that answered.
    pub passed: u64,
    /// Connections that answered with an error, too late or not at all.
    pub failed: u64,
}

/// Closed connections, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Closed {
    /// A statement was abandoned on them.
    pub abandoned: u64,
    /// The server, or something between, ended them.
    pub ended: u64,
    /// They failed their check.
    pub failed_check: u64,
    /// `invalidate_all` was called.
    pub generation: u64,
    /// A hook refused them.
    pub by_hook: u64,
    /// They idled for longer than the policy's `idle_timeout`.
    pub idle: u64,
    /// They came back with a transaction open.
    pub in_transaction: u64,
    /// They were past their deadline.
    pub lifetime: u64,
    /// The pool was closed.
    pub pool_closed: u64,
    /// Their servers were silent while they owed a response, and would have been for ever.
    pub silent: u64,
    /// The pool was full when they answered their check late, or when they were made in the place of one that had.
    pub surplus: u64,
}

/// Connections made, and attempts that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Connects {
    /// Connections made: with `pipeline_login=true`, before their logins are answered.
    pub opened: u64,
    /// Attempts that failed, whether or not they were repeated.
    pub failed: u64,
    /// Connections whose login took so long that the compute must have been asleep.
    pub cold_starts: u64,
    /// How long the last connection took to make, retries included; with `pipeline_login=true`, up to the client's last
    /// message of the login.
    pub last: Duration,
    /// How long the slowest connection took to make, retries included.
    pub slowest: Duration,
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            skipped,
            passed,
            failed,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The reasons that have closed a connection, with their numbers.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            abandoned,
            by_hook,
            ended,
            failed_check,
            generation,
            idle,
            in_transaction,
            lifetime,
            pool_closed,
            silent,
            surplus,
        } = *self;
        let numbers = [
            (abandoned, "abandoned"),
            (ended, "ended"),
            (failed_check, "failed their check"),
            (generation, "invalidated"),
            (by_hook, "refused by a hook"),
            (idle, "idle"),
            (in_transaction, "in a transaction"),
            (lifetime, "past their lifetime"),
            (pool_closed, "closed with the pool"),
            (silent, "silent"),
            (surplus, "surplus"),
        ];
        let mut separator = "";
        for (number, what) in numbers.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{separator}{number} {what}")?;
            separator = ", ";
        }
        match separator {
            "" => f.write_str("none"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Connects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            opened,
            failed,
            cold_starts,
            last,
            slowest,
        } = self;
        write!(
            f,
            "{opened} opened ({cold_starts} of them by cold starts), {failed} attempts failed; the last took {last:.1?}, \
             the slowest {slowest:.1?}"
        )
    }
}

/// The counters behind [`Checks`], [`Closed`] and [`Connects`], and the metrics.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) metrics: Metrics,
    skipped: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
    closed: [AtomicU64; ClosedFor::Surplus as usize + 1],
    opened: AtomicU64,
    failed_attempts: AtomicU64,
    cold_starts: AtomicU64,
    last_micros: AtomicU64,
    slowest_micros: AtomicU64,
}

impl Stats {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            skipped: AtomicU64::default(),
            passed: AtomicU64::default(),
            failed: AtomicU64::default(),
            closed: Default::default(),
            opened: AtomicU64::default(),
            failed_attempts: AtomicU64::default(),
            cold_starts: AtomicU64::default(),
            last_micros: AtomicU64::default(),
            slowest_micros: AtomicU64::default(),
        }
    }

    pub(crate) fn checks(&self) -> Checks {
        Checks {
            skipped: read(&self.skipped),
            passed: read(&self.passed),
            failed: read(&self.failed),
        }
    }

    pub(crate) fn closed(&self) -> Closed {
        let of = |reason: ClosedFor| read(&self.closed[reason as usize]);
        Closed {
            abandoned: of(ClosedFor::Abandoned),
            ended: of(ClosedFor::Ended),
            failed_check: of(ClosedFor::FailedCheck),
            generation: of(ClosedFor::Generation),
            by_hook: of(ClosedFor::Hook),
            idle: of(ClosedFor::Idle),
            in_transaction: of(ClosedFor::InTransaction),
            lifetime: of(ClosedFor::Lifetime),
            pool_closed: of(ClosedFor::PoolClosed),
            silent: of(ClosedFor::Silent),
            surplus: of(ClosedFor::Surplus),
        }
    }

    pub(crate) fn connects(&self) -> Connects {
        Connects {
            opened: read(&self.opened),
            failed: read(&self.failed_attempts),
            cold_starts: read(&self.cold_starts),
            last: Duration::from_micros(read(&self.last_micros)),
            slowest: Duration::from_micros(read(&self.slowest_micros)),
        }
    }

    pub(crate) fn check_skipped(&self) {
        add(&self.skipped);
    }

    pub(crate) fn checked(&self, passed: bool) {
        add(if passed { &self.passed } else { &self.failed });
    }

    pub(crate) fn closed_for(&self, reason: ClosedFor) {
        add(&self.closed[reason as usize]);
        self.metrics.closed();
    }

    pub(crate) fn cold_start(&self) {
        add(&self.cold_starts);
    }

    pub(crate) fn opened(&self, took: Duration) {
        add(&self.opened);
        self.metrics.opened(took);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_micros.store(micros, Ordering::Relaxed);
        self.slowest_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn attempt_failed(&self) {
        add(&self.failed_attempts);
    }
}

/// Why a connection was closed; see [`Closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosedFor {
    Abandoned,
    Ended,
    FailedCheck,
    Generation,
    Hook,
    Idle,
    InTransaction,
    Lifetime,
    PoolClosed,
    Silent,
    Surplus,
}

impl From<&EvictReason> for ClosedFor {
    fn from(reason: &EvictReason) -> Self {
        match reason {
            EvictReason::Abandoned => Self::Abandoned,
            EvictReason::CheckCancelled
            | EvictReason::CheckFailed { .. }
            | EvictReason::NoAnswer { .. } => Self::FailedCheck,
            EvictReason::Ended { .. } | EvictReason::RuntimeEnded => Self::Ended,
            EvictReason::Generation => Self::Generation,
            EvictReason::Hook { .. } => Self::Hook,
            EvictReason::Idle => Self::Idle,
            EvictReason::InTransaction => Self::InTransaction,
            EvictReason::Lifetime => Self::Lifetime,
            EvictReason::PoolClosed => Self::PoolClosed,
            EvictReason::Silent { .. } => Self::Silent,
            EvictReason::Surplus => Self::Surplus,
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_connections_are_told_by_their_reasons() {
        let closed = Closed {
            ended: 1,
            silent: 2,
            ..Closed::default()
        };
        assert_eq!(closed.to_string(), "1 ended, 2 silent");
        assert_eq!(Closed::default().to_string(), "none");
    }
}
