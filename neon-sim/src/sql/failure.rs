//! Why a request has failed, as the client is told.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use serde_json::json;

use super::answer::respond;
use crate::control::faults::is_final;
use crate::protocol::message::{error_field, no_database};
use crate::proxy::backend::Refusal;

/// Why a request has failed.
#[derive(Debug)]
pub(super) struct Failure {
    status: u16,
    message: String,
    /// The SQLSTATE, if the words are the server's without its ErrorResponse.
    code: &'static str,
    /// The server's ErrorResponse, if the words are its own.
    server: Option<Vec<u8>>,
}

impl Failure {
    /// Returns a failure of the proxy's own.
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            code: "",
            server: None,
        }
    }

    /// Returns a failure that the client is to mend.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// Returns a failure of the way to the compute; one that may pass is none of the client's.
    pub(super) fn connecting(message: String) -> Self {
        let status = if is_final(&message) { 400 } else { 500 };
        Self::new(status, message)
    }

    /// Returns what the server would say about a database that it does not have.
    pub(super) fn no_database(name: &str) -> Self {
        Self {
            code: "3D000",
            ..Self::bad(no_database(name))
        }
    }

    /// Returns what the server has said.
    pub(super) fn told(error_response: Vec<u8>) -> Self {
        Self {
            status: 400,
            message: String::new(),
            code: "",
            server: Some(error_response),
        }
    }

    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let field = |name| error_field(self.server.as_deref()?, name);
        let body = json!({
            "message": field(b'M').as_ref().unwrap_or(&self.message),
            "code": field(b'C').as_deref().unwrap_or(self.code),
            "detail": field(b'D'),
            "hint": field(b'H'),
            "position": field(b'P'),
            "internalPosition": field(b'p'),
            "internalQuery": field(b'q'),
            "severity": field(b'S').unwrap_or_default(),
            "where": field(b'W'),
            "table": field(b't'),
            "column": field(b'c'),
            "schema": field(b's'),
            "dataType": field(b'd'),
            "constraint": field(b'n'),
            "file": field(b'F'),
            "line": field(b'L'),
            "routine": field(b'R'),
        });
        respond(self.status, body.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Proxy(text) => Self::connecting(text.into()),
            Refusal::Server(body) => Self::told(body),
        }
    }
}
