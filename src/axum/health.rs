//! [`health`]: probes that let the compute sleep.

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::unavailable::{STOPPING, problem};
use crate::pool::{Pool, Status};

/// Returns routes for probes: `/livez` answers that the process runs, `/readyz` whether requests should come here.
///
/// `/readyz` asks the pool, not the database. Probes come every few seconds: a query or a new connection for each would
/// keep the compute awake, and every hour of every night would be billed. The latest real request is as good an answer, and
/// without requests a suspended compute is ready. So it answers 503 once the pool is closed, and for five seconds after a request
/// got no connection, unless another has got one since: not for longer, as a server without traffic never finds out that
/// the database is back. Else it answers 200, with numbers of the pool in JSON.
///
/// `/livez` answers 200: a database that is down is no reason to restart the server.
pub fn health<S>() -> Router<S>
where
    Pool: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

async fn livez() -> Response {
    json(r#"{"status":"alive"}"#.to_owned())
}

async fn readyz(State(pool): State<Pool>) -> Response {
    let status = pool.status();
    if pool.is_closed() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, STOPPING);
    }
    if status.last_refused.is_some_and(|ago| ago < MEMORY) {
        let detail = "The latest request got no connection.";
        return problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    }
    let Status {
        max_size,
        size,
        idle,
        in_use,
        waiting,
        ..
    } = status;
    json(format!(
        r#"{{"status":"ready","pool":{{"max_size":{max_size},"size":{size},"idle":{idle},"in_use":{in_use},"waiting":{waiting}}}}}"#
    ))
}

fn json(body: String) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], body).into_response()
}

/// How long one failure counts.
const MEMORY: Duration = Duration::from_secs(5);
