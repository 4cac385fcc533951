//! One statement at a time: this crate's connection against AsyncPgConnection, tokio-postgres and sqlx, on the
//! same server in the same run. `cargo run --release --manifest-path benches/peers/Cargo.toml`
//!
//! With the argument `addresses`: a server with a dozen addresses, one of which works.
//!
//! They take turns in short slices, and a ratio is the median over the rounds, so that whatever else the
//! machine does hits all alike.

mod addresses;
mod contenders;
mod slices;

use std::time::Duration;

use neon_sim::NeonSim;

use crate::contenders::{Operation, Ours, Peer, Sqlx, Stock, TokioPostgres};
use crate::slices::{Rates, race};

#[tokio::main(worker_threads = 2)]
async fn main() {
    let neon = NeonSim::builder().never_suspend().start().await;
    let neon = neon.expect("the stand-in for Neon starts");
    if std::env::args().any(|argument| argument == "addresses") {
        return addresses::table(&neon).await;
    }
    neon.sql(SCHEMA).await.expect("a schema");
    // sqlx knows no `hostaddr`.
    let by_option = format!(
        "postgresql://neondb_owner:{}@127.0.0.1:{}/neondb?sslmode=require&options=endpoint%3D{}",
        neon.password(),
        neon.port(),
        neon.host().split('.').next().unwrap_or_default(),
    );
    let plain = neon.postgres_url();
    tables("PostgreSQL on loopback, without TLS", &plain, &plain).await;
    tables("Direct endpoint, TLS", &neon.url(), &by_option).await;
    neon.set_latency(Duration::from_millis(1));
    let what = "Direct endpoint, TLS, round trips of 2 ms";
    tables(what, &neon.url(), &by_option).await;
}

/// Enough rows for the look-ups, and few enough to be in memory.
const SCHEMA: &str = "\
    CREATE TABLE authors (id SERIAL PRIMARY KEY, name TEXT NOT NULL); \
    CREATE TABLE books ( \
        id SERIAL PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors, title TEXT NOT NULL, \
        pages INTEGER NOT NULL, rating DOUBLE PRECISION NOT NULL, note TEXT \
    ); \
    CREATE INDEX ON books (author_id); \
    INSERT INTO authors (name) SELECT 'Author ' || n FROM generate_series(1, 200) n; \
    INSERT INTO books (author_id, title, pages, rating) \
        SELECT 1 + n % 200, 'Book ' || n, n, 3.5 FROM generate_series(1, 2000) n; \
    CREATE TABLE inserted (LIKE books INCLUDING ALL); \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; \
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC; \
    ANALYZE";

async fn tables(route: &str, url: &str, sqlx_url: &str) {
    let mut ours = connect::<Ours>(url).await;
    let mut stock = connect::<Stock>(url).await;
    let mut tokio_postgres = connect::<TokioPostgres>(url).await;
    let mut sqlx = connect::<Sqlx>(sqlx_url).await;

    println!("\n{route}\n");
    println!(
        "| | connections | ours, per second | to AsyncPgConnection | to tokio-postgres | to sqlx | to the best |"
    );
    println!("|---|---|---|---|---|---|---|");
    for operation in Operation::ALL {
        for connections in [1, CONNECTIONS] {
            let rates = race(
                operation,
                connections,
                &mut ours,
                &mut stock,
                &mut tokio_postgres,
                &mut sqlx,
            )
            .await;
            print(operation, connections, &rates);
        }
    }
}

async fn connect<P: Peer>(url: &str) -> Vec<Option<P>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Some(P::connect(url).await));
    }
    connections
}

fn print(operation: Operation, connections: usize, rates: &Rates) {
    let [ours, ..] = rates.per_second();
    let [stock, tokio_postgres, sqlx] = rates.ratios();
    let best = stock.min(tokio_postgres).min(sqlx);
    let what = operation.name();
    println!(
        "| {what} | {connections} | {ours:.0} | {stock:.2} | {tokio_postgres:.2} | {sqlx:.2} | **{best:.2}** |"
    );
}

const CONNECTIONS: usize = 8;
