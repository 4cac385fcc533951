//! [`ServerError`]: an ErrorResponse or a NoticeResponse.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::backend::Malformed;

/// An ErrorResponse.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// The position of the error in the caller's SQL, in characters from 1.
    pub(crate) position: Option<i32>,
    /// The position of the error in `internal_query`, in characters from 1.
    pub(crate) internal_position: Option<i32>,
    /// The SQL that the server ran on the caller's behalf.
    pub(crate) internal_query: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) constraint: Option<String>,
    /// The function in the server's source; unlike the message, it is never translated.
    pub(crate) routine: Option<String>,
    /// What has made the client report the error in the server's place.
    pub(crate) cause: Option<Cause>,
}

/// The cause of an error that the client reports.
#[derive(Clone)]
pub(crate) struct Cause(pub(crate) Arc<dyn Error + Send + Sync>);

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cause {}

/// The SQLSTATE of a statement that a cancel request or a time-out of the server has ended.
pub(crate) const QUERY_CANCELED: &str = "57014";

impl ServerError {
    /// The routine of an error that the client reports if the server is silent for too long.
    pub(crate) const RESPONSE_TIMEOUT: &str = "response_timeout";

    /// The routine of an error that the client reports if nothing more will come from the server.
    pub(crate) const LOST_IN_SILENCE: &str = "silence_threshold";

    /// The routine of the same if the statement has never arrived.
    pub(crate) const UNDELIVERED: &str = "silence_threshold: undelivered";

    /// The routine of an error that the client reports of a request over HTTPS that was not sent, or not run.
    pub(crate) const NOT_SENT: &str = "not_sent";

    /// Returns whether the client has ended the session because nothing more will come from the server.
    pub(crate) fn is_lost_in_silence(&self) -> bool {
        matches!(
            self.routine.as_deref(),
            Some(Self::LOST_IN_SILENCE | Self::UNDELIVERED)
        )
    }

    /// Parses the body of an ErrorResponse or a NoticeResponse.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, value)) = field.split_first() else {
                break;
            };
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                // Field `V` is never translated, but servers before 9.6 do not send it.
                b'V' => error.severity = value,
                b'S' if error.severity.is_empty() => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'P' => error.position = value.parse().ok(),
                b'p' => error.internal_position = value.parse().ok(),
                b'q' => error.internal_query = Some(value),
                b't' => error.table = Some(value),
                b'c' => error.column = Some(value),
                b'n' => error.constraint = Some(value),
                b'R' => error.routine = Some(value),
                _ => {}
            }
        }
        error
    }

    /// Returns whether a cancel request has ended the statement. A time-out of the server has the same SQLSTATE, so the
    /// text decides.
    pub(crate) fn is_cancelled_by_request(&self) -> bool {
        self.code == QUERY_CANCELED && self.message == "canceling statement due to user request"
    }

    /// Returns the error with its position in the SQL behind a prefix of `len` characters.
    pub(crate) fn behind(mut self, len: usize) -> Self {
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        let position = self.position.and_then(|at| at.checked_sub(len));
        self.position = position.filter(|at| *at > 0);
        self
    }

    /// Returns an error that the client reports in the server's place.
    pub(crate) fn local(code: &str, message: &str) -> Self {
        Self {
            severity: "ERROR".to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
            ..Self::default()
        }
    }

    /// Returns whether the server ends the session with this error.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// Without what may name values of the caller's: the message, the detail and the SQL.
impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerError")
            .field("severity", &self.severity)
            .field("code", &self.code)
            .field("routine", &self.routine)
            .finish_non_exhaustive()
    }
}

impl From<Malformed> for ServerError {
    fn from(Malformed: Malformed) -> Self {
        Self::local("08P01", "the server's message is malformed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_one_in_the_callers_sql_or_none() {
        let position = |sent: &str| {
            let body = format!("SERROR\0P{sent}\0\0");
            ServerError::parse(body.as_bytes()).behind(6).position
        };
        assert_eq!(position("7"), Some(1));
        for sent in ["6", "0", "-1", "-2147483648", "2147483648", ""] {
            assert_eq!(position(sent), None, "{sent}");
        }
    }

    #[test]
    fn no_value_of_a_row_is_in_the_debug_output() {
        let body = "SERROR\0C23505\0Mduplicate key, secret\0DKey (a)=(secret)\0Hsecret\0qsecret\0\
                    R_bt_check_unique\0\0";
        let debug = format!("{:?}", ServerError::parse(body.as_bytes()));
        assert!(!debug.contains("secret"), "{debug}");
        for part in ["ERROR", "23505", "_bt_check_unique"] {
            assert!(debug.contains(part), "{debug}");
        }
    }
}
