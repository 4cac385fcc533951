use std::borrow::Cow;
use std::error::Error;

use axum::Json;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use diesel::result::Error as DieselError;
use diesel_neon::axum::Unavailable;
use diesel_neon::books::Invalid;
use diesel_neon::{DatabaseErrorExt, PoolError, RetryError};
use serde::Serialize;

/// A problem document (RFC 9457).
///
/// It has only details that help the client. The database's words stay in the log, under the id that the client
/// has in `x-request-id`.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
}

#[derive(Debug, Serialize)]
struct FieldError {
    detail: String,
    pointer: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    pub(crate) fn unavailable(detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(crate) fn internal() -> Self {
        let detail = "That is our fault; the header x-request-id helps us to find it.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }

        let body = Body {
            // `about:blank` means that the title is the status's own.
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(
                    header::RETRY_AFTER,
                    Unavailable::RETRY_AFTER.as_secs().into(),
                );
            }
            // The rest of the request may never come.
            StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<PoolError> for Problem {
    fn from(error: PoolError) -> Self {
        // Logs the error.
        let unavailable = Unavailable::from(error);
        match unavailable.status() {
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(),
            status => Self::new(status, unavailable.detail()),
        }
    }
}

impl From<DieselError> for Problem {
    fn from(error: DieselError) -> Self {
        // With `pipeline_login=true` a statement may be sent with a login that fails. It has not run then.
        if let Some(refused) = error.connect_error() {
            return PoolError::Connect(refused).into();
        }
        tracing::error!(error = &error as &dyn std::error::Error, "query failed");
        if error.is_connection_lost() {
            Self::unavailable("The database was lost; the request may have been carried out.")
        } else if error.is_transient() {
            Self::unavailable("The database cannot do this now; it has changed nothing.")
        } else {
            Self::internal()
        }
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Pool(error) => error.into(),
            RetryError::Query(error) => error.into(),
            _ => Self::internal(),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let errors = invalid.violations().iter().map(|violation| FieldError {
            detail: violation.rule.to_string(),
            pointer: format!("#/{}", violation.field),
        });
        Self {
            errors: errors.collect(),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "The book breaks rules.")
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let detail = match &rejection {
            JsonRejection::JsonDataError(error) => {
                format!("The body does not fit: {}.", reason(error))
            }
            JsonRejection::JsonSyntaxError(error) => {
                format!("The body is not JSON: {}.", reason(error))
            }
            _ => rejection.body_text(),
        };
        Self::new(rejection.status(), detail)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        if let PathRejection::FailedToDeserializePathParams(error) = &rejection {
            // An id is the only parameter in the paths here.
            if let ErrorKind::ParseError { value, .. } = error.kind() {
                return Self::new(rejection.status(), format!("`{value}` is no id."));
            }
        }
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let detail = match &rejection {
            QueryRejection::FailedToDeserializeQueryString(error) => {
                format!("The query does not fit: {}.", reason(error))
            }
            _ => rejection.body_text(),
        };
        Self::new(rejection.status(), detail)
    }
}

/// Returns the cause without axum's words about the program's types.
fn reason(error: &dyn Error) -> String {
    error.source().unwrap_or(error).to_string()
}
