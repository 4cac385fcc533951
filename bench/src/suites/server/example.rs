//! The example's own files, but for the page, the events and the stage.

use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware;
use diesel_neon::Pool;

use self::problem::Problem;

#[path = "../../../../examples/axum_server/books.rs"]
pub mod books;
#[allow(dead_code, reason = "some is for routes that the peers do not have")]
#[path = "../../../../examples/axum_server/extract.rs"]
pub mod extract;
#[path = "../../../../examples/axum_server/layers.rs"]
pub mod layers;
#[allow(dead_code, reason = "some is for the events")]
#[path = "../../../../examples/axum_server/origin.rs"]
pub mod origin;
#[allow(dead_code, reason = "some is for the stage")]
#[path = "../../../../examples/axum_server/problem.rs"]
pub mod problem;
#[path = "../../../../examples/axum_server/serve.rs"]
pub mod serve;

/// The state that the handlers share.
#[derive(Clone)]
pub struct App {
    /// Only where the handlers are the example's.
    pub pool: Option<Pool>,
    pub body_timeout: Duration,
}

impl FromRef<App> for Pool {
    fn from_ref(app: &App) -> Self {
        app.pool.clone().expect("a pool of ours")
    }
}

pub type Db = diesel_neon::axum::Db<Problem>;

/// The default of the example's `REQUEST_TIMEOUT`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

pub fn router(books: Router<App>, pool: Option<Pool>) -> Router {
    let app = App {
        pool,
        body_timeout: REQUEST_TIMEOUT / 3,
    };
    layers::around(books, app, REQUEST_TIMEOUT)
        .layer(middleware::from_fn_with_state(None, origin::known_name))
}
