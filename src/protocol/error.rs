//! [`ServerError`]: an ErrorResponse or a NoticeResponse.

use super::backend::Malformed;

/// An ErrorResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// Where the caller's SQL is wrong.
    pub(crate) position: Option<i32>,
    /// Where the SQL of `internal_query` is wrong.
    pub(crate) internal_position: Option<i32>,
    /// What the server ran on the caller's behalf.
    pub(crate) internal_query: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) constraint: Option<String>,
    /// The function in the server's source: unlike the message, never translated.
    pub(crate) routine: Option<String>,
}

/// What a cancel request and the server's own time-outs end a statement with.
pub(crate) const QUERY_CANCELED: &str = "57014";

impl ServerError {
    /// The routine of an error that this side reports if the server is silent for too long.
    pub(crate) const RESPONSE_TIMEOUT: &str = "response_timeout";

    pub(crate) fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, value)) = field.split_first() else {
                break;
            };
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                // `V` is never translated; servers before 9.6 do not send it.
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

    /// Whether a cancel request has ended the statement. A time-out of the server's own has the same code, so that the
    /// text decides.
    pub(crate) fn is_cancelled_by_request(&self) -> bool {
        self.code == QUERY_CANCELED && self.message == "canceling statement due to user request"
    }

    /// Returns the error with its position in the SQL behind the first `ahead` characters.
    pub(crate) fn behind(mut self, ahead: usize) -> Self {
        let ahead = i32::try_from(ahead).unwrap_or(i32::MAX);
        let position = self.position.and_then(|at| at.checked_sub(ahead));
        self.position = position.filter(|at| *at > 0);
        self
    }

    /// An error that this side reports in the server's place.
    pub(crate) fn local(code: &str, message: &str) -> Self {
        Self {
            severity: "ERROR".to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the server ends the session with it.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
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
        let position = |told: &str| {
            let body = format!("SERROR\0P{told}\0\0");
            ServerError::parse(body.as_bytes()).behind(6).position
        };
        assert_eq!(position("7"), Some(1));
        for told in ["6", "0", "-1", "-2147483648", "2147483648", ""] {
            assert_eq!(position(told), None, "{told}");
        }
    }
}
