//! What the process of a server runs.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::example::serve::{Limits, serve};
use super::example::{self, App, REQUEST_TIMEOUT};
use super::peers;
use crate::count;
use crate::pools::{Bb8, Configuration, Deadpool, Pool, Settings, Sqlx};
use crate::suites::on_runtime;

/// The part's name.
pub const PART: &str = "server";

/// Returns a configuration's name for such a process.
pub fn name(configuration: Configuration) -> &'static str {
    match configuration {
        Configuration::Default => "default",
        Configuration::Serverless => "serverless",
        Configuration::Unchecked => "unchecked",
    }
}

const CONFIGURATIONS: [Configuration; 3] = [
    Configuration::Default,
    Configuration::Serverless,
    Configuration::Unchecked,
];

/// Serves with the pool that has this place among the names, until nobody holds the other end of the input.
pub fn run(arm: &str, configuration: &str) {
    count::end_with_input();
    // As the example logs.
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr))
        .with(Targets::new().with_default(tracing::Level::INFO))
        .init();
    let known = CONFIGURATIONS
        .into_iter()
        .find(|one| name(*one) == configuration);
    let configuration = known.expect("a configuration's name");
    on_runtime(async {
        let url = count::url();
        let (books, pool) = match arm {
            "0" => (example::books::routes(), Some(ours(&url, configuration))),
            "1" => (of_peer::<Bb8>(&url, configuration).await, None),
            "2" => (of_peer::<Deadpool>(&url, configuration).await, None),
            "3" => (of_peer::<Sqlx>(&url, configuration).await, None),
            _ => panic!("no server is called {arm}"),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        println!("{}", listener.local_addr().expect("an address"));
        let limits = Limits {
            connections: MAX_CONNECTIONS,
            request: REQUEST_TIMEOUT,
        };
        serve(
            listener,
            example::router(books, pool),
            limits,
            watch::Sender::new(false),
        )
        .await;
    });
}

/// The example's defaults.
const POOL_SIZE: u32 = 10;
const MAX_CONNECTIONS: u16 = 200;

fn ours(url: &str, configuration: Configuration) -> diesel_neon::Pool {
    let silence = Duration::from_secs(1);
    diesel_neon::Pool::builder(url)
        .silence_threshold((configuration == Configuration::Serverless).then_some(silence))
        .max_size(POOL_SIZE)
        .checkout_timeout(REQUEST_TIMEOUT * 2 / 3)
        .build()
        .expect("a pool")
}

async fn of_peer<P: Pool + peers::Shelf>(url: &str, configuration: Configuration) -> Router<App> {
    let settings = Settings {
        configuration,
        max_size: POOL_SIZE,
        patience: REQUEST_TIMEOUT * 2 / 3,
    };
    peers::routes(P::build(url, settings).await)
}
