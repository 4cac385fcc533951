//! A server's errors as Diesel's, without losing the SQLSTATE.

use std::cell::Cell;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error};

use crate::connect::ConnectError;
use crate::protocol::{Cause, ServerError};

/// What Diesel's errors do not tell by themselves: their SQLSTATE, for which they have no place, and whether the connection
/// is lost.
///
/// ```
/// use diesel::result::Error;
/// use diesel_neon::DatabaseErrorExt;
///
/// fn is_overlap(error: &Error) -> bool {
///     error.sqlstate() == Some("23P01") // an exclusion constraint is violated
/// }
/// ```
pub trait DatabaseErrorExt: sealed::Sealed {
    /// Returns the SQLSTATE.
    ///
    /// For a lost connection it is that of the server's fatal error, or one of class 08 if the server has sent none.
    /// [`AsyncPgConnection`](diesel_async::AsyncPgConnection) drops the SQLSTATE: of its errors, only those have one that
    /// stand for one SQLSTATE as a [`DatabaseErrorKind`].
    fn sqlstate(&self) -> Option<&str>;

    /// Returns the SQL that was wrong, if the server ran it on behalf of the statement: a string that a function passed
    /// to `EXECUTE`, for example.
    ///
    /// The error's `statement_position` is then one in that SQL. Errors of
    /// [`AsyncPgConnection`](diesel_async::AsyncPgConnection) have none.
    fn internal_query(&self) -> Option<&str>;

    /// Returns why there is no connection, if the statement was sent with a login that has failed; see
    /// [`with_pipelined_login`](crate::DatabaseUrl::with_pipelined_login).
    ///
    /// The statement has not run; the SQLSTATE is `08001`. If the login's answer is lost, the statement may have run:
    /// then there is no such error, and the connection is lost ([`is_connection_lost`](Self::is_connection_lost)).
    fn connect_error(&self) -> Option<ConnectError>;

    /// Returns whether the error means that the connection is lost. The statement may have run or not.
    fn is_connection_lost(&self) -> bool;

    /// Returns whether the statement was ended because the server had sent nothing for the policy's
    /// [`response_timeout`](crate::PolicyBuilder::response_timeout).
    ///
    /// The connection is lost then ([`is_connection_lost`](Self::is_connection_lost)). Errors of
    /// [`AsyncPgConnection`](diesel_async::AsyncPgConnection) show only that.
    fn is_response_timeout(&self) -> bool;

    /// Returns whether the statement never arrived at the server: its process was idle since before the statement was
    /// sent, and was ended, so that it is safe to do the statement again. See the policy's
    /// [`silence_threshold`](crate::PolicyBuilder::silence_threshold). The connection is lost then
    /// ([`is_connection_lost`](Self::is_connection_lost)).
    ///
    /// It is also true if an `HttpConnection` (feature `http`) has not sent a statement, or if the server's proxy has refused
    /// to run it.
    fn is_undelivered(&self) -> bool;

    /// Returns whether the same transaction may succeed if it is run again from its start: the connection was lost, the
    /// server had no room, another transaction was in the way, or a statement was prepared for tables that have changed.
    ///
    /// After a lost connection, the first attempt may have been committed. An error in the statement itself is not
    /// transient: too few or too many bind parameters, a zero byte, more than the protocol can carry; its kind is
    /// [`UnableToSendCommand`](DatabaseErrorKind::UnableToSendCommand).
    fn is_transient(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for diesel::result::Error {}
}

impl DatabaseErrorExt for Error {
    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::DatabaseError(kind, information) => {
                let sent = field(&**information, Field::Code);
                sent.or(code_of(*kind)).filter(|code| !code.is_empty())
            }
            Self::RollbackErrorOnCommit { commit_error, .. } => commit_error.sqlstate(),
            _ => None,
        }
    }

    fn internal_query(&self) -> Option<&str> {
        match self {
            Self::DatabaseError(_, information) => {
                field(&**information, Field::InternalQuery).filter(|query| !query.is_empty())
            }
            Self::RollbackErrorOnCommit { commit_error, .. } => commit_error.internal_query(),
            _ => None,
        }
    }

    fn connect_error(&self) -> Option<ConnectError> {
        match self {
            Self::DatabaseError(_, information) => {
                field(&**information, Field::Cause)?;
                let cause = CAUSE.take()?;
                cause.0.downcast_ref().cloned()
            }
            Self::RollbackErrorOnCommit { commit_error, .. } => commit_error.connect_error(),
            _ => None,
        }
    }

    fn is_connection_lost(&self) -> bool {
        match self {
            Self::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => true,
            // `AsyncPgConnection` has no kind for it.
            Self::DatabaseError(DatabaseErrorKind::UnableToSendCommand, information) => {
                field(&**information, Field::Code).is_none()
                    && ["connection closed", "error communicating with the server"]
                        .contains(&information.message())
            }
            Self::RollbackErrorOnCommit { rollback_error, .. } => {
                rollback_error.is_connection_lost()
            }
            _ => false,
        }
    }

    fn is_response_timeout(&self) -> bool {
        matches!(self, Self::DatabaseError(_, information)
            if field(&**information, Field::Routine) == Some(ServerError::RESPONSE_TIMEOUT))
    }

    fn is_undelivered(&self) -> bool {
        match self {
            Self::DatabaseError(_, information) => {
                matches!(
                    field(&**information, Field::Routine),
                    Some(ServerError::UNDELIVERED | ServerError::NOT_SENT)
                )
            }
            Self::RollbackErrorOnCommit { commit_error, .. } => commit_error.is_undelivered(),
            _ => false,
        }
    }

    fn is_transient(&self) -> bool {
        if let Some(error) = self.connect_error() {
            return error.is_transient();
        }
        if self.is_connection_lost() {
            return true;
        }
        if matches!(
            self,
            Self::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
        ) {
            return false;
        }
        let Some(code) = self.sqlstate() else {
            return false;
        };
        // Connection exceptions and insufficient resources; serialization failure, deadlock, lock not available; the
        // server shuts down or starts up; an unknown statement name, which the connection has forgotten by now.
        ["08", "53"].iter().any(|class| code.starts_with(class))
            || matches!(
                code,
                "26000" | "40001" | "40P01" | "55P03" | "57P01" | "57P02" | "57P03"
            )
            || has_stale_plan(self)
    }
}

/// Returns whether the error is "cached plan must not change result type", whose SQLSTATE says only "not supported".
fn has_stale_plan(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information)
        if field(&**information, Field::Routine) == Some("RevalidateCachedQuery"))
}

/// Returns the error that a server has sent as Diesel's.
pub(crate) fn server_error(error: Box<ServerError>) -> Error {
    match error.is_fatal() {
        true => lost(error),
        false => database_error(kind_of(&error.code), error),
    }
}

/// Returns the error of a lost connection as Diesel's.
pub(crate) fn lost(cause: Box<ServerError>) -> Error {
    database_error(DatabaseErrorKind::ClosedConnection, cause)
}

/// Returns the error of a statement that cannot be sent as Diesel's.
pub(crate) fn unsendable(error: ServerError) -> Error {
    database_error(DatabaseErrorKind::UnableToSendCommand, Box::new(error))
}

fn database_error(kind: DatabaseErrorKind, error: Box<ServerError>) -> Error {
    Error::DatabaseError(kind, Box::new(Information(error)))
}

fn kind_of(code: &str) -> DatabaseErrorKind {
    // The server reports a protocol violation if a statement has too few bind parameters, for example.
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

/// The kinds that stand for one SQLSTATE each.
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
struct Information(Box<ServerError>);

thread_local! {
    /// The field that the next call of `message` returns: Diesel hands out its errors as trait objects, whose other
    /// methods have no room for the SQLSTATE.
    static FIELD: Cell<Field> = const { Cell::new(Field::Message) };

    /// What a call of `message` for [`Field::Cause`] has found.
    static CAUSE: Cell<Option<Cause>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Message,
    Code,
    Routine,
    InternalQuery,
    Cause,
    /// An [`Information`] has returned the field.
    Returned,
}

/// Returns a field of an error, if the error is an [`Information`].
fn field(
    information: &(dyn DatabaseErrorInformation + Send + Sync),
    wanted: Field,
) -> Option<&str> {
    FIELD.set(wanted);
    let value = information.message();
    let is_ours = FIELD.replace(Field::Message) == Field::Returned;
    is_ours.then_some(value)
}

impl DatabaseErrorInformation for Information {
    fn message(&self) -> &str {
        let value = match FIELD.get() {
            Field::Message | Field::Returned => return &self.0.message,
            Field::Code => &self.0.code,
            Field::Routine => self.0.routine.as_deref().unwrap_or_default(),
            Field::InternalQuery => self.0.internal_query.as_deref().unwrap_or_default(),
            Field::Cause => {
                CAUSE.set(self.0.cause.clone());
                ""
            }
        };
        FIELD.set(Field::Returned);
        value
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
        server_error(Box::new(error))
    }

    #[test]
    fn every_error_keeps_its_code_and_its_message() {
        for code in ["23505", "40P01", "57014", "42P01"] {
            let error = server(code, "ERROR");
            assert_eq!(error.sqlstate(), Some(code));
            assert_eq!(error.to_string(), "a text");
            assert_eq!(error.sqlstate(), Some(code));
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
        assert_eq!(unique.sqlstate(), Some("23505"));
        assert_eq!(
            foreign(DatabaseErrorKind::Unknown, "40001").sqlstate(),
            None
        );
        let closed = foreign(DatabaseErrorKind::UnableToSendCommand, "connection closed");
        assert!(closed.is_connection_lost() && closed.is_transient());
        assert_eq!(Error::NotFound.sqlstate(), None);
    }

    #[test]
    fn errors_that_pass_are_transient() {
        for code in ["26000", "40001", "40P01", "53300", "08006", "57P01"] {
            assert!(server(code, "ERROR").is_transient(), "{code}");
        }
        for code in [
            "23505", "42601", "57014", "22012", "08P01", "", "0", "0é", "é8",
        ] {
            assert!(!server(code, "ERROR").is_transient(), "{code}");
        }
        assert!(server("57P01", "FATAL").is_transient());
        for (routine, transient) in [("RevalidateCachedQuery", true), ("transformStmt", false)] {
            let mut error = ServerError::local("0A000", "a text");
            error.routine = Some(routine.to_owned());
            let error = server_error(Box::new(error));
            assert_eq!(error.is_transient(), transient, "{routine}");
        }
        assert!(server("08P01", "FATAL").is_connection_lost());
    }
}
