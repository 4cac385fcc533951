use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::App;
use crate::problem::Problem;

/// How long one failure counts. A server that gets no traffic because it is not ready would never
/// find out that the database is back.
const MEMORY: Duration = Duration::from_secs(5);

/// When requests last failed to get a connection, if the latest one did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Option<Instant>>>);

impl Health {
    /// Notes whether a request got no connection.
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

/// Whether the process runs. A database that is down is no reason to restart it.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Whether requests should come here.
///
/// It asks the pool, not the database. Probes come every few seconds: with a query behind them, or
/// a connection opened for them, the compute would never be suspended, and every hour of every
/// night be billed. What real requests met last is as good an answer, and where there are none, a
/// compute that sleeps is ready.
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
