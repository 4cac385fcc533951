//! From a session's failures to Diesel's errors, without losing the SQLSTATE.

use std::cell::Cell;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error};

use crate::protocol::ServerError;
use crate::session::Failure;

/// The server's SQLSTATE.
///
/// Diesel's errors have no place for it, so ask here; for a connection that was lost it is that of the
/// server's last words, else one of class 08. For errors of
/// [`AsyncPgConnection`](diesel_async::AsyncPgConnection), which drops it, only those are known that
/// Diesel has a kind of its own for.
pub fn sqlstate(error: &Error) -> Option<&str> {
    match error {
        Error::DatabaseError(kind, information) => {
            let told = asked(&**information, Asking::Code);
            told.or(code_of(*kind)).filter(|code| !code.is_empty())
        }
        Error::RollbackErrorOnCommit { commit_error, .. } => sqlstate(commit_error),
        _ => None,
    }
}

/// The SQL that the server ran on the statement's behalf and that was wrong, such as a string that a
/// function passed to `EXECUTE`.
///
/// The error's `statement_position` is then one in that SQL. For errors of
/// [`AsyncPgConnection`](diesel_async::AsyncPgConnection) it is not known.
pub fn internal_query(error: &Error) -> Option<&str> {
    match error {
        Error::DatabaseError(_, information) => {
            asked(&**information, Asking::Query).filter(|query| !query.is_empty())
        }
        Error::RollbackErrorOnCommit { commit_error, .. } => internal_query(commit_error),
        _ => None,
    }
}

/// Whether the connection is gone; the statement may have run or not.
pub fn is_connection_lost(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => true,
        // All that `AsyncPgConnection` tells.
        Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, information) => {
            asked(&**information, Asking::Code).is_none()
                && ["connection closed", "error communicating with the server"]
                    .contains(&information.message())
        }
        Error::RollbackErrorOnCommit { rollback_error, .. } => is_connection_lost(rollback_error),
        _ => false,
    }
}

/// Returns whether the statement was ended because the server had sent nothing for the policy's
/// [`response_timeout`](crate::PolicyBuilder::response_timeout).
///
/// The connection is lost then ([`is_connection_lost`]). For errors of
/// [`AsyncPgConnection`](diesel_async::AsyncPgConnection) that is all that is known.
pub fn is_response_timeout(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if asked(&**information, Asking::Routine) == Some(ServerError::RESPONSE_TIMEOUT))
}

/// Whether the same transaction, run again from its start, may succeed without anybody changing
/// anything: the connection was lost, the server had no room, another transaction was in the way, or a
/// statement had been prepared for tables that have changed since.
///
/// After a lost connection, the first attempt may have been committed. What is wrong with a statement
/// itself is not transient: a bind parameter too few or too many, a zero byte, more than the protocol can
/// carry; its kind is [`UnableToSendCommand`](DatabaseErrorKind::UnableToSendCommand).
pub fn is_transient(error: &Error) -> bool {
    if is_connection_lost(error) {
        return true;
    }
    if matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
    ) {
        return false;
    }
    let Some(code) = sqlstate(error) else {
        return false;
    };
    // Connection exceptions, insufficient resources; serialization failure, deadlock, lock not
    // available; the server shuts down or starts up; a name is not known, and is forgotten by now.
    ["08", "53"].iter().any(|class| code.starts_with(class))
        || matches!(
            code,
            "26000" | "40001" | "40P01" | "55P03" | "57P01" | "57P02" | "57P03"
        )
        || has_stale_plan(error)
}

/// "cached plan must not change result type", whose code alone says only that something is not supported.
fn has_stale_plan(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if asked(&**information, Asking::Routine) == Some("RevalidateCachedQuery"))
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Server(error) if error.is_fatal() => {
                Self::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(Told(error)))
            }
            Failure::Server(error) => {
                Self::DatabaseError(kind_of(&error.code), Box::new(Told(error)))
            }
            Failure::Lost(words) => {
                Self::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(Told(words)))
            }
            Failure::Abandoned => Self::QueryBuilderError(Box::new(AbandonedTransaction(()))),
            Failure::Unread => Self::QueryBuilderError(Box::new(UnreadRows(()))),
            Failure::Unsendable(reason) => {
                // No server has said it, so it has no code.
                let error = ServerError::local("", &reason.text());
                Self::DatabaseError(
                    DatabaseErrorKind::UnableToSendCommand,
                    Box::new(Told(Box::new(error))),
                )
            }
        }
    }
}

/// A transaction's future was dropped before its end, and what follows on the connection would run inside of
/// the transaction that it has left open, or of none. In a transaction that was begun by hand a dropped statement is
/// enough, as nothing tells whether somebody goes on behind it.
///
/// Diesel carries it as [`QueryBuilderError`](Error::QueryBuilderError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the transaction was abandoned: its future was dropped before its end, so nothing more runs on this \
     connection; drop it, or roll back with Connection::roll_back_abandoned"
)]
pub struct AbandonedTransaction(());

/// The answer of a statement is behind the rows of an earlier one on the same connection, more than are kept, and
/// nobody has read them for some seconds.
///
/// Diesel carries it as [`QueryBuilderError`](Error::QueryBuilderError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the rows of an earlier statement are in front of the answer, and nobody reads them: read or drop that \
     stream first; this statement may run all the same"
)]
pub struct UnreadRows(());

fn kind_of(code: &str) -> DatabaseErrorKind {
    // The server has seen what this side should not have sent: too few bind parameters, for example.
    if code == "08P01" {
        return DatabaseErrorKind::UnableToSendCommand;
    }
    KINDS
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(DatabaseErrorKind::Unknown, |(_, kind)| *kind)
}

fn code_of(kind: DatabaseErrorKind) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map(|(code, _)| *code)
}

/// The kinds that stand for one code each.
const KINDS: &[(&str, DatabaseErrorKind)] = &[
    ("23001", DatabaseErrorKind::RestrictViolation),
    ("23502", DatabaseErrorKind::NotNullViolation),
    ("23503", DatabaseErrorKind::ForeignKeyViolation),
    ("23505", DatabaseErrorKind::UniqueViolation),
    ("23514", DatabaseErrorKind::CheckViolation),
    ("23P01", DatabaseErrorKind::ExclusionViolation),
    ("25006", DatabaseErrorKind::ReadOnlyTransaction),
    ("40001", DatabaseErrorKind::SerializationFailure),
];

/// An error as Diesel carries it.
struct Told(Box<ServerError>);

thread_local! {
    /// What the next call of `message` is about: Diesel hands out its errors as trait objects that
    /// nothing can be asked of but that trait's methods.
    static ASKING: Cell<Asking> = const { Cell::new(Asking::Message) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Message,
    Code,
    Routine,
    Query,
    /// A [`Told`] has answered.
    Answered,
}

/// What the error has no place of its own for, if it is one of ours that is asked.
fn asked(information: &(dyn DatabaseErrorInformation + Send + Sync), what: Asking) -> Option<&str> {
    ASKING.set(what);
    let answer = information.message();
    let answered = ASKING.replace(Asking::Message) == Asking::Answered;
    answered.then_some(answer)
}

impl DatabaseErrorInformation for Told {
    fn message(&self) -> &str {
        let answer = match ASKING.get() {
            Asking::Message | Asking::Answered => return &self.0.message,
            Asking::Code => &self.0.code,
            Asking::Routine => self.0.routine.as_deref().unwrap_or_default(),
            Asking::Query => self.0.internal_query.as_deref().unwrap_or_default(),
        };
        ASKING.set(Asking::Answered);
        answer
    }

    fn details(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn table_name(&self) -> Option<&str> {
        self.0.table.as_deref()
    }

    fn column_name(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    fn constraint_name(&self) -> Option<&str> {
        self.0.constraint.as_deref()
    }

    fn statement_position(&self) -> Option<i32> {
        self.0.position.or(self.0.internal_position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str, severity: &str) -> Error {
        let mut error = ServerError::local(code, "a text");
        error.severity = severity.to_owned();
        Failure::Server(Box::new(error)).into()
    }

    #[test]
    fn every_error_keeps_its_code_and_its_message() {
        for code in ["23505", "40P01", "57014", "42P01"] {
            let error = server(code, "ERROR");
            assert_eq!(sqlstate(&error), Some(code));
            assert_eq!(error.to_string(), "a text");
            assert_eq!(sqlstate(&error), Some(code));
        }
        assert!(matches!(
            server("23505", "ERROR"),
            Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
        ));
        assert!(matches!(
            server("57P01", "FATAL"),
            Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
        ));
    }

    #[test]
    fn foreign_errors_are_known_by_their_kind() {
        let foreign = |kind, text: &str| Error::DatabaseError(kind, Box::new(text.to_owned()));
        let unique = foreign(DatabaseErrorKind::UniqueViolation, "40001");
        assert_eq!(sqlstate(&unique), Some("23505"));
        assert_eq!(
            sqlstate(&foreign(DatabaseErrorKind::Unknown, "40001")),
            None
        );
        let closed = foreign(DatabaseErrorKind::UnableToSendCommand, "connection closed");
        assert!(is_connection_lost(&closed) && is_transient(&closed));
        assert_eq!(sqlstate(&Error::NotFound), None);
    }

    #[test]
    fn what_another_try_may_mend_is_transient() {
        for code in ["26000", "40001", "40P01", "53300", "08006", "57P01"] {
            assert!(is_transient(&server(code, "ERROR")), "{code}");
        }
        for code in [
            "23505", "42601", "57014", "22012", "08P01", "", "0", "0é", "é8",
        ] {
            assert!(!is_transient(&server(code, "ERROR")), "{code}");
        }
        assert!(is_transient(&server("57P01", "FATAL")));
        for (routine, transient) in [("RevalidateCachedQuery", true), ("transformStmt", false)] {
            let mut error = ServerError::local("0A000", "a text");
            error.routine = Some(routine.to_owned());
            let error = Failure::Server(Box::new(error)).into();
            assert_eq!(is_transient(&error), transient, "{routine}");
        }
        assert!(is_connection_lost(&server("08P01", "FATAL")));
    }
}
