//! [`SetupError`] and [`TargetMismatch`]: why a session is of no use although its login succeeded.

use diesel::ConnectionError;
use diesel::result::Error;

/// Why a session that has logged in does not become a connection.
#[derive(Debug)]
pub(crate) enum SetupError {
    /// It has ended, or refuses its settings.
    Session(ConnectionError),
    /// The pool's hook `after_connect` failed.
    Hook(Error),
    /// The hook cannot succeed.
    Final(&'static str),
}

impl From<ConnectionError> for SetupError {
    fn from(error: ConnectionError) -> Self {
        Self::Session(error)
    }
}

/// The server is not of the kind that `target_session_attrs` asks for.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetMismatch {
    #[error(
        "the server is read-only, and target_session_attrs=read-write asks for one that takes writes"
    )]
    ReadOnly,
    #[error(
        "the server takes writes, and target_session_attrs=read-only asks for one that is read-only"
    )]
    ReadWrite,
}
