//! A REST API for the books, fit for production, and a page in front of it: <http://127.0.0.1:3000>.
//!
//! ```sh
//! cargo run -p diesel-neon-cli -- migrate run    # once
//! cargo run --example axum_server --features axum,books,serde
//!
//! curl -i localhost:3000/books -H 'content-type: application/json' -d '{"title": "Dune", "author": "Frank Herbert"}'
//! curl 'localhost:3000/books?author=Frank+Herbert&sort=publication_year&limit=10'
//! curl -X PATCH localhost:3000/books/1 -H 'content-type: application/json' -d '{"in_stock": false}'
//! ```
//!
//! A client that got no answer to a POST does not know whether the book was made. With a header
//! `Idempotency-Key` of its own choice, such as a random UUID, it can send the same request again: the answer is
//! the book of the first request, and no second one is made. The same key with another book is a 422.
//!
//! ```sh
//! curl -i localhost:3000/books -H "idempotency-key: $(uuidgen)" -H 'content-type: application/json' -d '{"title": "Emma"}'
//! ```
//!
//! | variable | default | |
//! |---|---|---|
//! | `DATABASE_URL` | | from Neon's console, pooled or direct; `.env` will do |
//! | `HOST`, `PORT` | `127.0.0.1`, `3000` | the address to listen on; port 0 takes a free one |
//! | `SERVER_NAME` | | by which clients call a server that listens on loopback, behind a proxy; else only `localhost` and addresses of loopback will do |
//! | `REQUEST_TIMEOUT` | `15` | seconds for one request, a cold start of the compute included |
//! | `POOL_SIZE` | `10` | connections to the database |
//! | `MAX_CONNECTIONS` | `200` | connections of clients; each takes a file descriptor, and the pool needs some too |
//! | `SILENCE_THRESHOLD` | `0` | seconds until a statement is looked after whose server is silent; 0 is never |
//! | `RUST_LOG` | `info` | such as `info,diesel_neon=debug` |
//! | `NEON_SIM_CONTROL` | | from neon-sim, in front of it: the page then has buttons for what can go wrong |

mod books;
mod events;
mod extract;
mod origin;
mod page;
mod problem;
mod serve;
mod stage;

use std::env::{self, VarError};
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use diesel_neon::Pool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_http::request_id::{
    MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::trace::TraceLayer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use events::Events;
use problem::Problem;
use serve::{Limits, serve};
use stage::{Control, Stage};

/// The server cannot start. A `main` that returns an error prints its Debug, which therefore is the message.
struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        Self(text)
    }
}

/// Larger than any book that is valid.
const MAX_BODY: usize = 16 * 1024;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    diesel_neon::env::load_dotenv()?;
    let filter: Targets = variable(
        "RUST_LOG",
        Targets::new().with_default(tracing::Level::INFO),
    )?;
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
        .with(filter)
        .init();

    let request_timeout = Duration::from_secs(variable("REQUEST_TIMEOUT", 15_u16)?.into());
    let host = variable("HOST", IpAddr::from(Ipv4Addr::LOCALHOST))?;
    let name = setting::<String>("SERVER_NAME")?.map(Arc::from);
    // Who else can reach it has been let in by whoever set HOST.
    let is_for_this_machine = host.is_loopback() && name.is_none();
    let silence = Duration::from_secs(variable("SILENCE_THRESHOLD", 0_u16)?.into());
    let url = diesel_neon::env::app_url()?.url;
    let pool = Pool::builder(url.clone())
        .silence_threshold((!silence.is_zero()).then_some(silence))
        .max_size(variable("POOL_SIZE", 10)?)
        // Shorter than the request's own limit, so that the client is told why it waited in vain.
        .checkout_timeout(request_timeout * 2 / 3)
        .build()?;
    let stage = match setting::<String>("NEON_SIM_CONTROL")? {
        None => None,
        Some(_) if !is_for_this_machine => {
            let words = "NEON_SIM_CONTROL is for a HOST of loopback without a SERVER_NAME: its buttons are for everybody";
            return Err(Failure(words.into()));
        }
        Some(control) => {
            // The words do not repeat the value, which has a secret in it.
            let control = control.parse::<Control>();
            let control = control.map_err(|error| Failure(format!("NEON_SIM_CONTROL: {error}")))?;
            Some(Stage::new(control, pool.clone(), &url)?)
        }
    };
    let (stop, stopping) = watch::channel(false);
    let app = App {
        pool: pool.clone(),
        // What the database says is for who runs the server.
        events: Events::new(stopping, request_timeout * 4 / 5, is_for_this_machine),
        stage,
        // The body and the checkout of a connection together take as long as a request may.
        body_timeout: request_timeout / 3,
    };
    let limits = Limits {
        connections: variable("MAX_CONNECTIONS", NonZeroU16::new(200).expect("it is more"))?.get(),
        request: request_timeout,
    };

    let address = SocketAddr::new(host, variable("PORT", 3000)?);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure(format!(
            "cannot listen on {address}: {error}; give it another PORT or HOST"
        ))
    })?;
    println!("listening on http://{}", listener.local_addr()?);

    let mut router = router(app, request_timeout);
    if host.is_loopback() {
        router = router.layer(middleware::from_fn_with_state(name, origin::known_name));
    }
    serve(listener, router, limits, stop).await;
    pool.close(request_timeout).await?;
    Ok(())
}

/// The state that the handlers share.
#[derive(Clone)]
struct App {
    pool: Pool,
    events: Events,
    /// Only in front of a stand-in for Neon.
    stage: Option<Arc<Stage>>,
    body_timeout: Duration,
}

impl FromRef<App> for Pool {
    fn from_ref(app: &App) -> Self {
        app.pool.clone()
    }
}

/// A connection for a request without a body. A handler that reads one gets its connection from the pool once the
/// body is read and valid, so that no connection is held while a slow client still sends.
type Db = diesel_neon::axum::Db<Problem>;

fn router(app: App, request_timeout: Duration) -> Router {
    let events = get(events::events).layer(middleware::from_fn(origin::same_origin));
    let stage = match app.stage {
        Some(_) => stage::routes(),
        None => Router::new(),
    };
    let router = Router::new()
        .merge(page::routes())
        .merge(stage)
        .route("/events", events)
        .merge(books::routes())
        .merge(diesel_neon::axum::health())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "There is nothing here."))
        .method_not_allowed_fallback(other_method)
        .with_state(app)
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

/// Reads a setting from the environment; one that cannot be parsed is an error, not the default.
fn variable<T>(name: &str, default: T) -> Result<T, Failure>
where
    T: FromStr<Err: Error>,
{
    setting(name).map(|value| value.unwrap_or(default))
}

fn setting<T>(name: &str) -> Result<Option<T>, Failure>
where
    T: FromStr<Err: Error>,
{
    match env::var(name) {
        Ok(value) => match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(Failure(format!("{name}={value}: {error}"))),
        },
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure(format!("{name} is not UTF-8"))),
    }
}
