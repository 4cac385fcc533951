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
mod layers;
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
use axum::extract::FromRef;
use axum::middleware;
use axum::routing::get;
use diesel_neon::Pool;
use tokio::net::TcpListener;
use tokio::sync::watch;
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
    let routes = Router::new()
        .merge(page::routes())
        .merge(stage)
        .route("/events", events)
        .merge(books::routes())
        .merge(diesel_neon::axum::health());
    layers::around(routes, app, request_timeout)
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
