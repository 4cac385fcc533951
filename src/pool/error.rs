//! [`BuildError`] and [`PoolError`]: why there is no pool, or no connection.

use std::time::Duration;

use super::status::Status;
use crate::connect::ConnectError;
use crate::env::EnvError;
use crate::policy::PolicyError;
use crate::transport::TlsError;
use crate::url::UrlError;

/// A pool cannot be built.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The environment does not say where the database is.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// There is no tokio runtime for the task that closes idle connections.
    #[error("a pool must be built inside a tokio runtime: call build() from an async function")]
    NoRuntime,
    /// That type of connection gives its statements names, and the pooler may not track them: one
    /// process can then run another's statement.
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
    /// The certificates to trust cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// There is no connection.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// Connecting has failed in a way that waiting does not mend.
    #[error("cannot connect: {0}")]
    Connect(#[source] ConnectError),
    /// Connecting took longer than the caller may wait, all attempts together.
    #[error(
        "cannot connect: no connection within {waited:?} ({status}); raise checkout_timeout and \
         connect_timeout if cold starts take longer"
    )]
    Connecting {
        /// How long the caller waited.
        waited: Duration,
        /// How the pool was then.
        status: Box<Status>,
    },
    /// Every connection was in use for as long as the caller may wait.
    #[error(
        "no connection became free within {waited:?} ({status}); raise max_size, or look for \
         connections that are held too long"
    )]
    Exhausted {
        /// How long the caller waited.
        waited: Duration,
        /// How the pool was then.
        status: Box<Status>,
    },
    /// The check of a connection had not ended when the caller's time had: it is dead, or the server is slow.
    #[error(
        "no connection within {waited:?}: the check of one was under way ({status}); raise \
         checkout_timeout, or lower validation_timeout"
    )]
    Validating {
        /// How long the caller waited.
        waited: Duration,
        /// How the pool was then.
        status: Box<Status>,
    },
}

impl PoolError {
    /// Whether the same call may succeed later without anybody changing anything; a web server answers
    /// 503 with Retry-After to these.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Closed => false,
            Self::Connect(error) => error.is_transient(),
            Self::Connecting { .. } | Self::Exhausted { .. } | Self::Validating { .. } => true,
        }
    }
}

crate::util::debug_is_display!(BuildError, PoolError);

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
