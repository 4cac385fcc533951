//! [`Failure`]: why one attempt of a connect failed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use diesel::result::DatabaseErrorKind;
use diesel::result::Error::DatabaseError;
use tokio_postgres::error::{DbError, SqlState};

use super::diagnosis::{Diagnosis, is_cut_off, steps};
use super::kind::{ConnectErrorKind, RetryClass};
use super::setup::{SetupError, TargetMismatch};
use crate::session::CancelFailure;
#[cfg(feature = "websocket")]
use crate::transport::WebSocketError;
use crate::transport::{AttemptFailure, DialError, Verdict};
use crate::util::error_chain::chain;

/// Why one attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(super) diagnosis: &'static Diagnosis,
    pub(super) code: Option<SqlState>,
    /// The server's message, or the step that failed.
    words: String,
    pub(super) server: Option<Arc<DbError>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(super) fn of_words(diagnosis: &'static Diagnosis, words: String) -> Self {
        Self {
            diagnosis,
            code: None,
            words,
            server: None,
            source: None,
        }
    }

    /// The login succeeded, and the first statement behind it failed with this error of the server's.
    pub(super) fn of_server_error(words: String, sqlstate: Option<&str>) -> Self {
        Self {
            code: sqlstate.map(SqlState::from_code),
            ..Self::of_words(Diagnosis::of_words(&words, sqlstate), words)
        }
    }

    pub(super) fn postgres(error: tokio_postgres::Error) -> Self {
        #[cfg(feature = "websocket")]
        if let Some(failed) = websocket_error(&error) {
            return Self::of_words(Diagnosis::of_websocket(failed), failed.to_string());
        }
        let diagnosis = Diagnosis::of_login(&error);
        if error.is_closed() || is_cut_off(&chain(&error)) {
            return Self::of_words(diagnosis, "the server closed the connection".to_owned());
        }
        let words = error.to_string();
        let Some(source) = error.into_source() else {
            return Self::of_words(diagnosis, words);
        };
        match source.downcast::<DbError>() {
            Ok(server) => Self {
                code: Some(server.code().clone()),
                words: server.message().to_owned(),
                server: Some(Arc::from(server)),
                ..Self::of_words(diagnosis, words)
            },
            Err(source) => Self {
                source: Some(Arc::from(source)),
                ..Self::of_words(diagnosis, words)
            },
        }
    }

    /// The URL leads to a Unix socket, where nothing speaks HTTP.
    #[cfg(feature = "http")]
    pub(super) fn no_web_server(name: &str) -> Self {
        Self::of_words(
            &steps::NOT_POSTGRES,
            format!("{name} is no web server's host"),
        )
    }

    /// The session was established, but could not be set up.
    pub(super) fn setup(error: SetupError) -> Self {
        let set_up = "the session cannot be set up".to_owned();
        match error {
            SetupError::Session(error) => Self {
                source: Some(Arc::new(error)),
                ..Self::of_words(&steps::BROKEN, set_up)
            },
            SetupError::Hook(error) => {
                let step = match &error {
                    DatabaseError(DatabaseErrorKind::ClosedConnection, _) => &steps::BROKEN,
                    _ => &steps::AFTER_CONNECT,
                };
                Self {
                    source: Some(Arc::new(error)),
                    ..Self::of_words(step, "after_connect failed".to_owned())
                }
            }
            SetupError::Final(words) => {
                Self::of_words(&steps::AFTER_CONNECT_WRONG, words.to_owned())
            }
        }
    }

    /// Returns the words and their causes in one line.
    pub(super) fn reason(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {}", self.words, chain(&**source)),
            None => self.words.clone(),
        }
    }
}

/// Returns the failure of the WebSocket that made a login fail.
#[cfg(feature = "websocket")]
fn websocket_error(error: &tokio_postgres::Error) -> Option<&WebSocketError> {
    let source = error.source()?.downcast_ref::<std::io::Error>()?;
    source.get_ref()?.downcast_ref()
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        let failure = Self::of_words(Diagnosis::of_dialling(&error), error.to_string());
        Self {
            source: error.into_source(),
            ..failure
        }
    }
}

impl From<CancelFailure> for Failure {
    fn from(failure: CancelFailure) -> Self {
        match failure {
            CancelFailure::Dial(error) => error.into(),
            CancelFailure::Postgres(error) => Self::postgres(error),
        }
    }
}

impl From<TargetMismatch> for Failure {
    fn from(mismatch: TargetMismatch) -> Self {
        Self::of_words(&steps::OTHER_TARGET, mismatch.to_string())
    }
}

impl AttemptFailure for Failure {
    fn verdict(&self) -> Verdict {
        match (&self.code, self.diagnosis.kind()) {
            // A single address may be rerouted, or have a stale certificate.
            (None, ConnectErrorKind::Tls) => Verdict::Next,
            _ if self.diagnosis.is_of_one_address() => Verdict::Next,
            (_, kind) if kind.retry_class() == RetryClass::Final => Verdict::Final,
            (_, ConnectErrorKind::TooManyConnections) => Verdict::Full,
            (Some(_), _) => Verdict::Refused,
            (None, _) => Verdict::Next,
        }
    }

    fn may_pass(&self) -> bool {
        let class = self.diagnosis.kind().retry_class();
        matches!(class, RetryClass::Restart | RetryClass::Patient)
    }

    fn is_of_way(&self) -> bool {
        let is_own = matches!(
            self.diagnosis.kind(),
            ConnectErrorKind::TargetSessionAttrs | ConnectErrorKind::Authentication
        );
        self.code.is_none() && !is_own
    }

    fn weight(&self) -> u8 {
        match (&self.code, self.diagnosis.kind()) {
            (Some(_), _) | (None, ConnectErrorKind::TargetSessionAttrs) => 3,
            (None, ConnectErrorKind::Tls) => 2,
            // The failure of an address that may be dialled tells more.
            _ if self.diagnosis.is_of_one_address() => 0,
            (None, _) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        match &self.code {
            // Neon's proxy sends XX000 with every error, so that it tells nothing.
            Some(code) if *code != SqlState::INTERNAL_ERROR => {
                write!(f, " (SQLSTATE {})", code.code())
            }
            _ => Ok(()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::transport::Address;
    use crate::url::UrlError;

    #[test]
    fn an_address_that_plain_text_must_not_go_to_does_not_keep_others_from_it() {
        let forbidden = Failure::from(DialError::Forbidden {
            name: "postgres".to_owned(),
            source: UrlError::PlaintextAddress {
                address: "203.0.113.5".parse().unwrap(),
                private_allowed: true,
            },
        });
        assert_eq!(forbidden.verdict(), Verdict::Next);
        let refused = Failure::from(DialError::Connect {
            address: Address::Tcp("10.0.0.1:5432".parse().unwrap()),
            source: io::ErrorKind::ConnectionRefused.into(),
        });
        assert!(refused.weight() > forbidden.weight());
    }
}
