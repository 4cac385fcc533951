//! [`EvictReason`]: why the pool closes a connection. [`Generation`]: when all are evicted together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Why a connection is not handed out any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EvictReason {
    /// The connection did not answer its check in time.
    #[error("it did not answer within {bound:?}")]
    NoAnswer {
        /// The policy's `validation_timeout`, or how long it took until a [`ConnectionManager`](crate::ConnectionManager) had
        /// another connection.
        bound: Duration,
    },
    /// A statement was abandoned on the connection before its response had come.
    #[error("a statement was abandoned on it")]
    Abandoned,
    /// The caller gave up during the check, so that the connection's state is unknown.
    #[error("its check was cancelled")]
    CheckCancelled,
    /// The server answered the check with an error.
    #[error("its check failed: {message}")]
    CheckFailed {
        /// The error's SQLSTATE, if it has one.
        sqlstate: Option<String>,
        /// The error's text.
        message: String,
    },
    /// The server, or something between, has ended the connection.
    #[error("it has ended: {message}")]
    Ended {
        /// The SQLSTATE of the server's last error, if it sent one.
        sqlstate: Option<String>,
        /// That error's text.
        message: String,
    },
    /// [`invalidate_all`](crate::Pool::invalidate_all) was called.
    #[error("its generation has ended")]
    Generation,
    /// A hook refused the connection: it returned false or an error, did not end in time, or panicked.
    #[error("{hook} refused it")]
    Hook {
        /// `before_acquire` or `after_release`.
        hook: &'static str,
    },
    /// The connection was idle for as long as the policy's `idle_timeout`.
    #[error("it was idle for too long")]
    Idle,
    /// The connection came back with a transaction open, or with its transaction state unknown.
    #[error("it is in a transaction")]
    InTransaction,
    /// The connection is past its deadline.
    #[error("it is past its lifetime")]
    Lifetime,
    /// The pool is closed.
    #[error("the pool is closed")]
    PoolClosed,
    /// The tokio runtime on which the connection was made has ended.
    #[error("its runtime has ended")]
    RuntimeEnded,
    /// The server was silent for longer than the policy's `silence_threshold` while it owed a response, and would have
    /// been for ever.
    #[error("its statement was lost: {message}")]
    Silent {
        /// What is known of the statement.
        message: String,
    },
    /// The pool was full when it answered its check late, or when it was made in the place of one that had.
    #[error("the pool is full")]
    Surplus,
}

impl EvictReason {
    /// Returns the error that took the place of an answer, with its SQLSTATE, or says that nothing came.
    pub(crate) fn instead_of_answer(&self) -> Option<(String, Option<&str>)> {
        match self {
            Self::CheckFailed { sqlstate, message } | Self::Ended { sqlstate, message } => {
                Some((message.clone(), sqlstate.as_deref()))
            }
            Self::NoAnswer { .. } => Some((self.to_string(), None)),
            _ => None,
        }
    }
}

/// The generation of a pool's connections.
///
/// A generation ends by [`invalidate_all`](crate::Pool::invalidate_all). Its connections are evicted then: idle ones at
/// their next checkout, those in use when they come back.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    current: AtomicU64,
    closed: AtomicBool,
    /// Notified when a generation ends and when the pool closes.
    ended: Notify,
}

impl Generation {
    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Ends the current generation.
    pub(crate) fn end_current(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
        self.ended.notify_waiters();
    }

    /// Marks the pool as closed: no generation follows.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until `generation` has ended or the pool is closed.
    pub(crate) async fn until_ended(&self, generation: u64) {
        loop {
            let ended = self.ended.notified();
            if self.current() != generation || self.is_closed() {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_end_of_a_generation_wakes_those_who_wait_for_it() {
        type End = fn(&Generation);
        let ends: [(End, bool); 2] = [(Generation::end_current, true), (Generation::close, true)];
        for (end, wakes) in ends {
            let generation = Generation::default();
            let mut waiting = pin!(generation.until_ended(0));
            assert!(waiting.as_mut().now_or_never().is_none());
            end(&generation);
            assert_eq!(waiting.now_or_never().is_some(), wakes);
            assert_eq!(generation.until_ended(0).now_or_never().is_some(), wakes);
        }
    }
}
