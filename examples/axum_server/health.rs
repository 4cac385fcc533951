use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::App;
use crate::problem::Problem;

/// How long one failure counts. Without an end, a server that is not ready would get no traffic and never find
/// out that the database is back.
const MEMORY: Duration = Duration::from_secs(5);

/// The time at which the latest request failed to get a connection; `None` if it got one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Option<Instant>>>);

impl Health {
    /// Records whether a request failed to get a connection.
    pub(crate) fn record(&self, failed: bool) {
        let failure = failed.then(Instant::now);
        // A panic cannot leave an `Option` half written.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn failed_lately(&self) -> bool {
        let failure = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failure.is_some_and(|at| at.elapsed() < MEMORY)
    }
}

/// Answers that the process runs. A database that is down is no reason to restart it.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Answers whether requests should come here.
///
/// Asks the pool, not the database. Probes come every few seconds: a query or a new connection for each would
/// keep the compute awake, and every hour of every night would be billed. The latest real request is as good
/// an answer, and without requests a suspended compute is ready.
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Value>, Problem> {
    if app.pool.is_closed() {
        return Err(Problem::unavailable("The server is about to stop."));
    }
    if app.health.failed_lately() {
        return Err(Problem::unavailable(
            "The latest request got no connection.",
        ));
    }
    let pool = app.pool.status();
    Ok(Json(json!({
        "status": "ready",
        "pool": {
            "max_size": pool.max_size,
            "size": pool.size,
            "idle": pool.idle,
            "in_use": pool.in_use,
            "waiting": pool.waiting,
        },
    })))
}
