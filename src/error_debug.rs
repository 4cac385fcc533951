//! Debug of public errors. A `main` that returns an error prints its Debug, so that has to be the message.

use std::fmt;

macro_rules! debug_is_display {
    ($($error:ty),* $(,)?) => {$(
        /// The message, since a `main` that returns the error prints its Debug.
        impl fmt::Debug for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

debug_is_display! {
    crate::connect::ConnectError,
    crate::env::EnvError,
    crate::manager::ManagerError,
    crate::policy::PolicyError,
    crate::pool::BuildError,
    crate::pool::PoolError,
    crate::retry::RunError,
    crate::tls::TlsError,
    crate::url::UrlError,
}

#[cfg(feature = "books")]
debug_is_display!(crate::books::Invalid);

#[cfg(feature = "migrations")]
debug_is_display!(crate::migration::MigrateError);

#[cfg(test)]
mod tests {
    use std::error::Error;

    use crate::env::EnvError;
    use crate::policy::PolicyError;
    use crate::pool::{BuildError, PoolError};
    use crate::retry::RunError;
    use crate::tls::TlsError;
    use crate::url::UrlError;

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
                RunError::Query(diesel::result::Error::NotFound).into(),
                "Record not found",
            ),
        ];
        for (error, message) in mains {
            assert_eq!(format!("{error:?}"), message);
        }
    }
}
