//! What is around all routes: limits, a log, and answers to what no route has.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::request_id::{
    MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::trace::TraceLayer;

use crate::problem::Problem;

/// Larger than any book that is valid.
const MAX_BODY: usize = 16 * 1024;

pub(crate) fn around<S>(routes: Router<S>, state: S, request_timeout: Duration) -> Router
where
    S: Clone + Send + Sync + 'static,
{
    let router = routes
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "There is nothing here."))
        .method_not_allowed_fallback(other_method)
        .with_state(state)
        // The last layer is the outermost one.
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(request_timeout, timeout))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid));
    // A router adds the header Allow outside of its own layers.
    Router::new()
        .fallback_service(router)
        .layer(middleware::map_response(allow_options))
}

/// Answers OPTIONS, and refuses methods for which a route has no handler; axum adds the header `Allow`.
async fn other_method(method: Method) -> Response {
    match method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => {
            let detail = "The header Allow lists what is possible.";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response()
        }
    }
}

/// Adds OPTIONS, which [`other_method`] answers, to the methods that axum knows of.
async fn allow_options(mut response: Response) -> Response {
    if let Some(allow) = response.headers().get(header::ALLOW) {
        let allow = [allow.as_bytes(), b",OPTIONS"].concat();
        if let Ok(allow) = HeaderValue::from_bytes(&allow) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    response
}

/// Ends a request that takes too long. A connection that is dropped in the middle of a query cancels it, and the
/// pool replaces the connection.
async fn timeout(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "The answer took too long.").into_response()
        }
    }
}

/// Returns the span of a request's log lines, with the id that the client gets in `x-request-id`.
fn span(request: &Request) -> tracing::Span {
    let id = request.extensions().get::<RequestId>();
    let id = id
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
}
