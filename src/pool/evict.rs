//! [`EvictReason`]: why the pool closes a connection.

use std::time::Duration;

/// Why a connection is not handed out any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvictReason {
    /// It did not answer in time.
    #[error("it did not answer within {bound:?}")]
    NoAnswer {
        /// The policy's validation timeout.
        bound: Duration,
    },
    /// A statement was given up on it whose answer had not come.
    #[error("a statement was given up on it")]
    Abandoned,
    /// Whoever asked for it gave up while it was being checked, so nothing is known.
    #[error("its check was cancelled")]
    CheckCancelled,
    /// It answered the check with an error.
    #[error("its check failed: {message}")]
    CheckFailed {
        /// The SQLSTATE, where there is one.
        sqlstate: Option<String>,
        /// The error.
        message: String,
    },
    /// The server, or something between, has ended it.
    #[error("it has ended: {message}")]
    Ended {
        /// The SQLSTATE of the server's last error, where it sent one.
        sqlstate: Option<String>,
        /// That error's text.
        message: String,
    },
    /// It belongs to a generation that was found dead, or was invalidated.
    #[error("its generation is retired")]
    Generation,
    /// It came back with a transaction open, or with its transaction state unknown.
    #[error("it is in a transaction")]
    InTransaction,
    /// It is past its deadline.
    #[error("it is past its lifetime")]
    Lifetime,
    /// The pool is closed.
    #[error("the pool is closed")]
    PoolClosed,
}

impl EvictReason {
    /// Returns what the other side said instead of an answer, or did not say, with its SQLSTATE.
    pub(crate) fn words(&self) -> Option<(String, Option<&str>)> {
        match self {
            Self::CheckFailed { sqlstate, message } | Self::Ended { sqlstate, message } => {
                Some((message.clone(), sqlstate.as_deref()))
            }
            Self::NoAnswer { .. } => Some((self.to_string(), None)),
            _ => None,
        }
    }
}
