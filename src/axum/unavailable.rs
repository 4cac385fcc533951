//! [`Unavailable`]: the answer to a request that gets no connection.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::pool::PoolError;

/// Answers a request that gets no connection with a problem document (RFC 9457).
///
/// The status is 503 with `Retry-After` if the same request may succeed later ([`PoolError::is_transient`]) or elsewhere (the
/// pool is closed), else 500. The document tells the client nothing of the database; the error is logged when this is made of it: a
/// warning for 503, an error for 500.
#[derive(Clone, thiserror::Error)]
#[error(transparent)]
pub struct Unavailable(PoolError);

crate::util::debug_is_chain!(Unavailable);

impl Unavailable {
    /// What `Retry-After` says: a compute usually wakes within this time.
    pub const RETRY_AFTER: Duration = Duration::from_secs(3);

    /// Returns why there is no connection.
    pub fn error(&self) -> &PoolError {
        &self.0
    }

    /// Returns the status of the answer: 503 or 500.
    pub fn status(&self) -> StatusCode {
        match self.0.is_transient() || matches!(self.0, PoolError::Closed) {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the words of the answer, which say nothing of the database but that it cannot be had.
    pub fn detail(&self) -> &'static str {
        match &self.0 {
            PoolError::Exhausted { .. } => "Too many requests want the database at once.",
            PoolError::Closed => STOPPING,
            error if error.is_transient() => "The database cannot be reached.",
            _ => "The server has a fault, which its log names.",
        }
    }
}

impl From<PoolError> for Unavailable {
    fn from(error: PoolError) -> Self {
        let unavailable = Self(error);
        let error = unavailable.error() as &dyn std::error::Error;
        match unavailable.status() {
            StatusCode::SERVICE_UNAVAILABLE => tracing::warn!(error, "no connection"),
            _ => tracing::error!(error, "no connection, and none to come"),
        }
        unavailable
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        problem(self.status(), self.detail())
    }
}

/// What a server says that is about to stop.
pub(super) const STOPPING: &str = "The server is about to stop.";

/// Returns a problem document. Its `detail` has no character that JSON escapes.
pub(super) fn problem(status: StatusCode, detail: &'static str) -> Response {
    // `about:blank` means that the title is the status's own.
    let title = status.canonical_reason().unwrap_or_default();
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{},"detail":"{detail}"}}"#,
        status.as_u16()
    );
    let problem = HeaderValue::from_static("application/problem+json");
    let mut response = (status, [(header::CONTENT_TYPE, problem)], body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = HeaderValue::from(Unavailable::RETRY_AFTER.as_secs());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
