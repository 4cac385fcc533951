//! The memory of connections on the client's side: heap bytes of the one thread that they run on. The threads of
//! neon-sim do not count.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::future::Future;

use allocation_counter::AllocationInfo;
use common::HANG;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use diesel_neon::DatabaseUrl;
use futures_util::TryStreamExt;
use neon_sim::NeonSim;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

diesel::table! {
    wide (id) {
        id -> Integer,
        c0 -> Integer,
        c1 -> Integer,
        c2 -> Integer,
        c3 -> Integer,
        c4 -> Integer,
        c5 -> Text,
        c6 -> Text,
        c7 -> Text,
        c8 -> Text,
        c9 -> Text,
    }
}

#[test]
fn a_connection_with_fifty_statements_takes_no_more_than_diesel_asyncs() {
    let neon = runtime().block_on(start());
    for url in [neon.postgres_url(), neon.url()] {
        let ours = taken(ours(&url));
        let theirs = taken(theirs(&url));
        let ratio = ours as f64 / theirs as f64;
        println!(
            "{} connections with {STATEMENTS} statements, {}: {ours} bytes each, \
             AsyncPgConnection {theirs}, ratio {ratio:.2}",
            connections(),
            if url.contains("disable") {
                "no TLS"
            } else {
                "TLS"
            },
        );
        assert!(ratio <= 1.1, "{ratio:.2}");
    }
}

#[test]
fn a_large_result_is_streamed_in_little_memory() {
    let neon = runtime().block_on(start());
    for url in [neon.postgres_url(), neon.url(), neon.pooled_url()] {
        let mut streamed = 0;
        let heap = measure(async {
            let pool = common::pool(&url, |policy| policy.max_size(1));
            let mut connection = pool.get().await.unwrap();
            let rows = diesel::sql_query(
                "SELECT repeat('x', 10000) AS text FROM generate_series(1, 10000)",
            );
            let mut rows = rows.load_stream::<Long>(&mut connection).await.unwrap();
            while let Some(row) = rows.try_next().await.unwrap() {
                streamed += row.text.len();
            }
        });
        println!("{streamed} bytes streamed, at most {} held", heap.bytes_max);
        assert_eq!(streamed, 100_000_000);
        assert!(heap.bytes_max < 1_000_000, "{heap:?}");
    }
}

#[derive(QueryableByName)]
struct Long {
    #[diesel(sql_type = Text)]
    text: String,
}

/// Opens connections as the pool makes and holds them.
async fn ours(url: &str) -> impl Sized + use<> {
    let count = connections();
    let pool = common::pool(url, |policy| policy.max_size(count).never_suspends());
    let mut open = Vec::new();
    for _ in 0..count {
        let mut connection = pool.get().await.unwrap();
        run_all(&mut *connection).await.unwrap();
        open.push(connection);
    }
    // A connection takes the same memory in use and idle.
    drop(open);
    assert_eq!(pool.status().size, count);
    pool
}

/// Opens diesel-async's connections, with a shared TLS configuration.
async fn theirs(url: &str) -> impl Sized + use<> {
    let url = DatabaseUrl::parse(url).unwrap();
    let config = url.to_tokio_postgres();
    let tls = url.to_rustls().unwrap().map(MakeRustlsConnect::new);
    let mut open = Vec::new();
    for _ in 0..connections() {
        let connection = match &tls {
            None => {
                let (client, driver) = config.connect(NoTls).await.unwrap();
                AsyncPgConnection::try_from_client_and_connection(client, driver).await
            }
            Some(tls) => {
                let (client, driver) = config.connect(tls.clone()).await.unwrap();
                AsyncPgConnection::try_from_client_and_connection(client, driver).await
            }
        };
        let mut connection = connection.unwrap();
        run_all(&mut connection).await.unwrap();
        open.push(connection);
    }
    open
}

/// Runs fifty different statements, twice each.
async fn run_all<C: AsyncConnection<Backend = Pg>>(connection: &mut C) -> QueryResult<()> {
    macro_rules! run {
        ($($column:ident = $value:expr,)*) => {$(
            let column = wide::$column;
            wide::table.find(1).select(column).execute(connection).await?;
            wide::table.filter(column.gt($value)).count().execute(connection).await?;
            let page = wide::table.filter(column.ge($value)).order((column, wide::id));
            page.limit(10).execute(connection).await?;
            diesel::delete(wide::table.filter(column.lt($value)))
                .execute(connection)
                .await?;
            let insert = diesel::insert_into(wide::table).values(column.eq($value));
            insert.returning(wide::all_columns).execute(connection).await?;
        )*};
    }
    for _ in 0..2 {
        run! {
            c0 = 1, c1 = 1, c2 = 1, c3 = 1, c4 = 1,
            c5 = "a", c6 = "a", c7 = "a", c8 = "a", c9 = "a",
        }
    }
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = Integer)]
        count: i32,
    }
    let prepared =
        "SELECT count(*)::int4 AS count FROM pg_prepared_statements WHERE statement !~ 'prepared'";
    let prepared: Count = diesel::sql_query(prepared).get_result(connection).await?;
    assert_eq!(prepared.count, STATEMENTS);
    Ok(())
}

const STATEMENTS: i32 = 50;

/// Returns the heap bytes of each connection that `open` makes.
fn taken(open: impl Future<Output: Sized>) -> i64 {
    let heap = measure(open);
    heap.bytes_current / i64::from(connections())
}

/// Returns the heap bytes of `work` and of its output. Uses a runtime of its own, since a dropped task may live
/// on until its runtime runs again.
fn measure(work: impl Future<Output: Sized>) -> AllocationInfo {
    let runtime = runtime();
    let mut output = None;
    let heap = allocation_counter::measure(|| {
        let work = async { timeout(5 * HANG, work).await.expect("no hang") };
        output = Some(runtime.block_on(work));
    });
    runtime.block_on(async { drop(output) });
    heap
}

/// Returns the number of connections: `CONNECTIONS`, else a few, as bytes are counted and not estimated.
fn connections() -> u32 {
    let connections = std::env::var("CONNECTIONS").ok();
    connections.map_or(20, |number| number.parse().expect("a number"))
}

/// Returns a runtime of one thread, so that the tasks that drive connections count as well.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn start() -> NeonSim {
    let most = (2 * connections() + 50).to_string();
    let neon = common::neon_with(|neon| neon.postgres_settings([("max_connections", most)])).await;
    let columns: Vec<_> = (0..10)
        .map(|n| match n {
            0..5 => format!("c{n} INTEGER NOT NULL DEFAULT 0"),
            _ => format!("c{n} TEXT NOT NULL DEFAULT ''"),
        })
        .collect();
    let columns = columns.join(", ");
    neon.sql(&format!(
        "CREATE TABLE wide (id SERIAL PRIMARY KEY, {columns}); GRANT ALL ON wide, wide_id_seq TO PUBLIC"
    ))
    .await
    .unwrap();
    neon
}
