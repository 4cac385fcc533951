//! The example's own files, and what its `main` puts around them but for the page, the events and the stage.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use diesel_neon::Pool;
use tower_http::request_id::{
    MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::trace::TraceLayer;

use self::problem::Problem;

#[path = "../../../../examples/axum_server/books.rs"]
pub mod books;
#[allow(dead_code, reason = "some is for routes that the peers do not have")]
#[path = "../../../../examples/axum_server/extract.rs"]
pub mod extract;
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
const MAX_BODY: usize = 16 * 1024;

pub fn router(books: Router<App>, pool: Option<Pool>) -> Router {
    let app = App {
        pool,
        body_timeout: REQUEST_TIMEOUT / 3,
    };
    let router = books
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "There is nothing here."))
        .with_state(app)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(REQUEST_TIMEOUT, timeout))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid));
    Router::new()
        .fallback_service(router)
        .layer(middleware::from_fn_with_state(None, origin::known_name))
}

async fn timeout(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "The answer took too long.").into_response()
        }
    }
}

fn span(request: &Request) -> tracing::Span {
    let id = request.extensions().get::<RequestId>();
    let id = id
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
}
