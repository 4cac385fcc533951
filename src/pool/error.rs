//! [`BuildError`] and [`PoolError`]: why there is no pool, and why a caller gets no connection.

#[cfg(feature = "blocking")]
use std::io;
#[cfg(feature = "blocking")]
use std::sync::Arc;
use std::time::Duration;

use super::status::Status;
use crate::connect::ConnectError;
use crate::env::EnvError;
use crate::policy::PolicyError;
use crate::transport::TlsError;
use crate::url::UrlError;

/// Why a pool cannot be built.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The hook `after_connect` cannot set up sessions behind a pooler: each transaction has another one.
    #[error(
        "after_connect would set up one session, and a pooler gives each transaction another: use ALTER ROLE … SET, \
         SET LOCAL in each transaction, or the direct endpoint (DatabaseUrl::direct)"
    )]
    AfterConnectBehindPooler,
    /// The environment has no usable URL.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The type of connection names its statements, and the pooler may not track them: one process can then run
    /// another's statement.
    #[error(
        "{connection} is not safe behind a pooler: it names its statements, so that one process can run \
         another's; use diesel_neon::Connection, or the direct endpoint (DatabaseUrl::direct), or say that \
         the pooler tracks prepared statements (NamedStatements::Always)"
    )]
    UnsafeBehindPooler {
        /// The type of connection.
        connection: &'static str,
    },
    /// Two settings contradict.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The runtime of [`blocking`](crate::blocking) connections, or its thread, cannot be made.
    #[cfg(feature = "blocking")]
    #[error(
        "blocking connections need a thread and a poller of their own: raise the limits of processes and open files"
    )]
    Runtime(#[source] Arc<io::Error>),
    /// The certificates to trust cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
}

#[cfg(feature = "blocking")]
impl BuildError {
    pub(crate) fn no_runtime(error: io::Error) -> Self {
        Self::Runtime(Arc::new(error))
    }
}

/// Why a caller gets no connection.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// Connecting failed, and waiting does not mend it.
    #[error(transparent)]
    Connect(ConnectError),
    /// All attempts to connect together took longer than the policy's `checkout_timeout`.
    #[error(
        "cannot connect: no connection within {waited:?} ({status}); raise checkout_timeout and \
         connect_timeout if cold starts take longer"
    )]
    Connecting {
        /// How long the caller waited.
        waited: Duration,
        /// The pool's status at that moment.
        status: Box<Status>,
    },
    /// For all of the policy's `checkout_timeout`, every connection was in use, or most of them were and earlier callers
    /// waited for the others.
    #[error(
        "no connection became free within {waited:?} ({status}); raise max_size, or look for \
         connections that are held too long"
    )]
    Exhausted {
        /// How long the caller waited.
        waited: Duration,
        /// The pool's status at that moment.
        status: Box<Status>,
    },
    /// No URL of the server itself is known, which a [`dedicated`](crate::Pool::dedicated) connection needs: a pooler
    /// is in front of it.
    #[error(
        "{host} is a pooler, and no direct endpoint of it is known: give the direct URL to \
         PoolBuilder::direct_url, or set DATABASE_URL_UNPOOLED for Pool::from_env"
    )]
    NoDirectEndpoint {
        /// The host that was tried.
        host: String,
    },
    /// The caller runs outside of a tokio runtime, on which connections are made and checked.
    #[error("a pool needs a tokio runtime: call get() inside of one")]
    NoRuntime,
    /// The certificates to trust for a [`dedicated`](crate::Pool::dedicated) connection cannot be loaded.
    #[error(transparent)]
    Tls(TlsError),
    /// The policy's `checkout_timeout` ended during the check of a connection, or in `before_acquire`: the connection is
    /// dead, or the server is slow.
    #[error(
        "no connection within {waited:?}: the check of one was under way ({status}); raise \
         checkout_timeout, or lower validation_timeout"
    )]
    Validating {
        /// How long the caller waited.
        waited: Duration,
        /// The pool's status at that moment.
        status: Box<Status>,
    },
}

impl PoolError {
    /// Returns whether the same call may succeed later without any change. A web server answers such an error with 503
    /// and Retry-After.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Closed | Self::NoDirectEndpoint { .. } | Self::NoRuntime | Self::Tls(_) => false,
            Self::Connect(error) => error.is_transient(),
            Self::Connecting { .. } | Self::Exhausted { .. } | Self::Validating { .. } => true,
        }
    }
}

/// Connections were still open when a pool had to be closed.
#[derive(Clone, thiserror::Error)]
#[error(
    "the pool is not closed after {patience:?}: connections are still out ({status}); they are closed when they come back"
)]
#[non_exhaustive]
pub struct CloseError {
    /// How long [`close`](crate::Pool::close) has waited.
    pub patience: Duration,
    /// The pool's status at that moment.
    pub status: Box<Status>,
}

crate::util::debug_is_chain!(BuildError, CloseError, PoolError);

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::retry::RetryError;
    use super::*;

    #[test]
    fn main_prints_the_message() {
        let zero = PolicyError::Zero {
            setting: "max_size",
        };
        let rustls = rustls::Error::General("no cipher suites".to_owned());
        let mains: [(Box<dyn Error>, &str); 7] = [
            (zero.clone().into(), "max_size must be more than zero"),
            (
                BuildError::from(zero).into(),
                "max_size must be more than zero",
            ),
            (UrlError::NoHost.into(), "the database URL names no host"),
            (
                EnvError::NotUtf8 {
                    variable: "DATABASE_URL",
                }
                .into(),
                "DATABASE_URL is not UTF-8",
            ),
            (
                TlsError::Rustls(rustls).into(),
                "rustls cannot be configured: unexpected error: no cipher suites",
            ),
            (PoolError::Closed.into(), "the pool is closed"),
            (
                RetryError::Query(diesel::result::Error::NotFound).into(),
                "Record not found",
            ),
        ];
        for (error, message) in mains {
            assert_eq!(format!("{error:?}"), message);
        }
    }
}
