//! What goes wrong with a request, as Diesel's errors: each says whether the statement may have run.

use std::time::Duration;

use diesel::result::Error;
use http::StatusCode;

use super::answer::ErrorAnswer;
use super::line::Trouble;
use crate::connect::{ConnectError, ConnectErrorKind};
use crate::protocol::ServerError;
use crate::query::{lost, server_error, unsendable};

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server has reported an error of the statement.
    Server(Box<ServerError>),
    /// Nothing has run; the same request may succeed later if the error is transient.
    NotRun(ConnectError),
    /// The connection had ended before the request was processed.
    Stale,
    /// All else.
    Other(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Server(error) => server_error(error),
            Self::NotRun(error) => not_run(&error),
            Self::Stale => not_sent("the server closes connections before it takes a request"),
            Self::Other(error) => error,
        }
    }
}

/// Returns the error of a statement that was not run because there is no connection, or because the server's proxy makes
/// none.
fn not_run(error: &ConnectError) -> Error {
    let code = match error.kind() {
        ConnectErrorKind::Authentication => "28P01",
        _ if error.is_transient() => "08001",
        _ => "08004",
    };
    let told = ServerError {
        routine: Some(ServerError::NOT_SENT.to_owned()),
        ..ServerError::local(
            error.sqlstate().unwrap_or(code),
            &format!(
                "{}; {}; the statement was not run",
                error.reason(),
                error.diagnosis().hint()
            ),
        )
    };
    match error.is_transient() {
        true => lost(Box::new(told)),
        false => unsendable(told),
    }
}

/// Returns the error of a statement that was not sent, in these words.
pub(super) fn not_sent(words: &str) -> Error {
    lost(Box::new(ServerError {
        routine: Some(ServerError::NOT_SENT.to_owned()),
        ..ServerError::local("08001", &format!("{words}; the statement was not sent"))
    }))
}

/// Returns the error of a statement that may have run, in these words.
pub(super) fn may_have_run(words: &str) -> Error {
    let words = format!("{words}; the statement may have run");
    lost(Box::new(ServerError::local("08007", &words)))
}

/// Returns the error of a statement that had no answer within `limit`.
pub(super) fn late(limit: Duration, is_sent: bool) -> Error {
    let words = format!("the server has not answered within {limit:?}");
    if !is_sent {
        return not_sent(&words);
    }
    lost(Box::new(ServerError {
        routine: Some(ServerError::RESPONSE_TIMEOUT.to_owned()),
        ..ServerError::local("08007", &format!("{words}; the statement may have run"))
    }))
}

/// Returns the error of an answer that cannot be read.
pub(super) fn malformed(reason: &str) -> Error {
    let words = format!("the server's answer cannot be read ({reason})");
    may_have_run(&words)
}

/// Returns the failure of a request that has no answer.
pub(super) fn of_trouble(trouble: Trouble, limit: usize) -> Failure {
    Failure::Other(match trouble {
        Trouble::NotConnected(error) => return Failure::NotRun(error),
        Trouble::Stale => return Failure::Stale,
        Trouble::Lost(reason) => may_have_run(&format!("the connection was lost: {reason}")),
        Trouble::TooLong => may_have_run(&format!(
            "the server's answer has more than {limit} bytes, the limit of this HttpConnection: return fewer rows, or \
             raise max_response_size"
        )),
    })
}

/// Returns the failure that an answer with another status than 200 tells of.
pub(super) fn of_answer(status: StatusCode, body: &[u8]) -> Failure {
    let limit = |words: &str| ServerError::local("54000", words);
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            return Failure::Other(unsendable(ServerError {
                routine: Some(ServerError::NOT_SENT.to_owned()),
                ..limit(
                    "the request is larger than the server takes over HTTPS, 10 MiB for Neon; the statement was not run: \
                     send it in parts, or over TCP or a WebSocket",
                )
            }));
        }
        StatusCode::INSUFFICIENT_STORAGE => {
            return Failure::Server(Box::new(limit(
                "the result is larger than the server returns over HTTPS, 10 MiB for Neon; the statement may have run: \
                 return fewer rows, or use TCP or a WebSocket",
            )));
        }
        _ => {}
    }
    let answer = serde_json::from_slice::<ErrorAnswer<'_>>(body);
    let error = answer.ok().map(ServerError::from);
    let Some(error) = error.filter(|error| !error.message.is_empty()) else {
        return Failure::Other(of_stranger(status));
    };
    if !error.code.is_empty() {
        return match error.code.as_str() {
            // The server takes no connection now: the statement has not begun. One that raises the same itself has run.
            "53300" | "57P03" if error.is_fatal() || error.severity.is_empty() => {
                let code = error.code.clone();
                Failure::NotRun(ConnectError::of_server_error(error.message, Some(&code)))
            }
            _ => Failure::Server(Box::new(error)),
        };
    }
    // The proxy's own words.
    let told = ConnectError::of_proxy(error.message.clone());
    match (told.kind(), status) {
        // The proxy says so also if it loses the server in the middle of a statement.
        _ if told.diagnosis().code() == "unavailable" => {
            Failure::Other(may_have_run(&error.message))
        }
        (ConnectErrorKind::Other, StatusCode::BAD_REQUEST) => Failure::Server(Box::new(error)),
        (ConnectErrorKind::Other, _) => Failure::Other(of_status(status, &error.message)),
        _ => Failure::NotRun(told),
    }
}

/// Returns the error of an answer that is not from Neon's proxy: something in between has answered, or another server.
fn of_stranger(status: StatusCode) -> Error {
    let words = format!(
        "what answers is not a server for SQL over HTTPS: its status is {status}; check the host in the database URL, and \
         the proxies on the way"
    );
    of_status(status, &words)
}

/// Returns the error of an answer of which only the status tells whether the statement may have run.
fn of_status(status: StatusCode, words: &str) -> Error {
    match REFUSALS.contains(&status) {
        false => may_have_run(words),
        true => unsendable(ServerError {
            routine: Some(ServerError::NOT_SENT.to_owned()),
            ..ServerError::local("08004", &format!("{words}; the statement was not run"))
        }),
    }
}

/// What tells that a request went no further. A proxy may make another success of 200, a server may give up with 408 what it has
/// begun, and Neon's answers with 400 for statements, too.
const REFUSALS: [StatusCode; 20] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
    StatusCode::UNAUTHORIZED,
    StatusCode::PAYMENT_REQUIRED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::URI_TOO_LONG,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::EXPECTATION_FAILED,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::UPGRADE_REQUIRED,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::DatabaseErrorExt;

    #[test]
    fn each_answer_says_whether_the_statement_may_have_run() {
        let of = |status: u16, body: &str| {
            of_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes()).into_error()
        };
        let proxy =
            |message: &str| format!(r#"{{"message":"{message}","code":"","position":null}}"#);
        for (status, body, not_run, transient) in [
            (500, proxy("Couldn't connect to compute node"), true, true),
            (500, proxy("Too many connections attempts"), true, true),
            (
                400,
                proxy("password authentication failed for user 'a'"),
                true,
                false,
            ),
            (
                400,
                r#"{"message":"full","code":"53300"}"#.to_owned(),
                true,
                true,
            ),
            (
                400,
                r#"{"message":"full","code":"53300","severity":"FATAL"}"#.to_owned(),
                true,
                true,
            ),
            (413, String::new(), true, false),
            (404, "<html>".to_owned(), true, false),
            (500, proxy("connection closed"), false, true),
            (500, proxy("could not parse postgres response"), false, true),
            (507, String::new(), false, false),
            (502, "<html>".to_owned(), false, true),
            (502, r#"{"error":"bad gateway"}"#.to_owned(), false, true),
            (403, r#"{"reason":"blocked"}"#.to_owned(), true, false),
            (403, r#"{"message":"Forbidden"}"#.to_owned(), true, false),
            (408, r#"{"message":"too late"}"#.to_owned(), false, true),
            (400, proxy(""), false, true),
            (
                400,
                r#"{"message":"a text that was cut o"#.to_owned(),
                false,
                true,
            ),
            (400, String::new(), false, true),
            (203, r#"{"rows":[],"rowCount":1}"#.to_owned(), false, true),
            (204, String::new(), false, true),
            (303, String::new(), false, true),
            (307, String::new(), true, false),
            (408, "<html>".to_owned(), false, true),
            (499, String::new(), false, true),
            (407, "<html>".to_owned(), true, false),
            (400, proxy("a text of tomorrow"), false, false),
        ] {
            let error = of(status, &body);
            assert_eq!(error.is_undelivered(), not_run, "{error} {body}");
            assert_eq!(error.is_transient(), transient, "{error} {body}");
            let says = error.to_string();
            assert!(!not_run || says.contains("not run"), "{says}");
        }
        let error = of(
            400,
            r#"{"message":"m","code":"23505","constraint":"c","position":"3"}"#,
        );
        assert_eq!(
            (error.sqlstate(), error.to_string()),
            (Some("23505"), "m".to_owned())
        );
    }
}
