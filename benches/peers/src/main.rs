//! One statement at a time: this crate's connection against AsyncPgConnection, tokio-postgres and sqlx, on the
//! same server in the same run. `cargo run --release --manifest-path benches/peers/Cargo.toml`
//!
//! With the argument `addresses`: a server with a dozen addresses, one of which works. With `instructions`: how many
//! instructions each executes for one statement, which other work on the machine does not change; with `pools`, the same
//! with a pool, beside deadpool-postgres and others. With `blocking`: pools for synchronous Diesel, against r2d2 with libpq.
//! With the name of an operation, such as `key look-up`: that one alone.
//!
//! They take turns in short slices, and a ratio is the median over the rounds, so that whatever else the
//! machine does hits all alike.

mod addresses;
mod blocking;
mod contenders;
mod instructions;
mod pools;
mod schema;
mod slices;

use std::path::Path;
use std::time::Duration;

use neon_sim::NeonSim;

use crate::contenders::{Operation, Ours, Peer, Sqlx, Stock, TokioPostgres};
use crate::slices::{Rates, race};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["pool", pool, numbers, url] => pools::run(pool, numbers, url),
        ["run", peer, operation, count, url] => instructions::run(peer, operation, count, url),
        _ => serve(arguments.first().copied()),
    }
}

#[tokio::main(worker_threads = 2)]
async fn serve(what: Option<&str>) {
    // As Neon's, it tracks prepared statements.
    let pgbouncer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/tools/bin/pgbouncer-tracking")
        .canonicalize()
        .expect("`make setup` has installed a PgBouncer");
    let neon = NeonSim::builder()
        .never_suspend()
        .pgbouncer_program(pgbouncer);
    let neon = neon.start().await.expect("the stand-in for Neon starts");
    if what == Some("addresses") {
        return addresses::table(&neon).await;
    }
    neon.sql(SCHEMA).await.expect("a schema");
    if what == Some("instructions") {
        return instructions::table(&neon.postgres_url());
    }
    if what == Some("pools") {
        return pools::table(&neon.postgres_url());
    }
    if what == Some("blocking") {
        return tokio::task::block_in_place(|| blocking::tables(&neon));
    }
    // sqlx knows no `hostaddr`.
    let by_option = |endpoint: &str| {
        format!(
            "postgresql://neondb_owner:{}@127.0.0.1:{}/neondb?sslmode=require&options=endpoint%3D{endpoint}",
            neon.password(),
            neon.port(),
        )
    };
    let host = neon.host();
    let endpoint = host.split('.').next().unwrap_or_default();
    let (direct, pooled) = (
        by_option(endpoint),
        by_option(&format!("{endpoint}-pooler")),
    );
    let plain = neon.postgres_url();
    tables("PostgreSQL on loopback, without TLS", &plain, &plain, what).await;
    tables("Direct endpoint, TLS", &neon.url(), &direct, what).await;
    tables("Pooled endpoint, TLS", &neon.pooled_url(), &pooled, what).await;
    neon.set_latency(Duration::from_millis(1));
    let route = "Direct endpoint, TLS, round trips of 2 ms";
    tables(route, &neon.url(), &direct, what).await;
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

/// Prints all operations, or the one that has this name.
async fn tables(route: &str, url: &str, sqlx_url: &str, name: Option<&str>) {
    let mut ours = connect::<Ours>(url).await;
    let mut stock = connect::<Stock>(url).await;
    let mut tokio_postgres = connect::<TokioPostgres>(url).await;
    let mut sqlx = connect::<Sqlx>(sqlx_url).await;

    println!("\n{route}\n");
    println!(
        "| | connections | ours, per second | to AsyncPgConnection | to tokio-postgres | to sqlx | to the best |"
    );
    println!("|---|---|---|---|---|---|---|");
    let wanted = |operation: &Operation| name.is_none_or(|name| operation.name() == name);
    for operation in Operation::ALL.into_iter().filter(wanted) {
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
