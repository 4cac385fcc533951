//! How many instructions a client executes for one look-up by key with a connection out of a pool of ten: get, statement,
//! give back. By so many callers at once, on one thread, as valgrind counts them.
//!
//! The pools are as they come, but that bb8 and sqlx do not ask the server before they hand a connection out: this crate
//! and deadpool-postgres do not either if it was used a moment ago.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ManagerConfig, RecyclingMethod};
use diesel::QueryDsl;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::contenders::{LOOK_UP, OK};
use crate::instructions::difference;
use crate::schema::{Book, books};

/// Prints the instructions with every pool, for every number of callers.
pub fn table(url: &str) {
    println!("| callers | {} |", POOLS.join(" | "));
    println!("|---|{}", "---|".repeat(POOLS.len()));
    for callers in [1, 10, 100, 10_000] {
        let laps = (LEAST / callers).max(1);
        let cells = POOLS.map(|pool| {
            let arguments = |laps: u32| {
                let numbers = [callers, laps].map(|number| number.to_string());
                ["pool".into(), pool.into(), numbers.join(","), url.into()]
            };
            let counted = difference(&arguments(laps), &arguments(2 * laps));
            (counted / u64::from(callers * laps)).to_string()
        });
        println!("| {callers} | {} |", cells.join(" | "));
    }
}

/// Has so many callers look up so often, all at once: `numbers` are the two, with a comma between.
pub fn run(pool: &str, numbers: &str, url: &str) {
    let (callers, laps) = numbers.split_once(',').expect("two numbers");
    let [callers, laps] = [callers, laps].map(|number| number.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match pool {
            OURS => repeat(ours(url, false), callers, laps).await,
            WATCHED => repeat(ours(url, true), callers, laps).await,
            DEADPOOL => repeat(deadpool(url), callers, laps).await,
            BB8 => repeat(bb8(url).await, callers, laps).await,
            SQLX => repeat(sqlx(url).await, callers, laps).await,
            unknown => panic!("no pool is called {unknown}"),
        }
    });
}

async fn repeat<P: LookUp>(pool: P, callers: u32, laps: u32) {
    let pool = Arc::new(pool);
    // Each connection prepares its statement first.
    crowd(&pool, CONNECTIONS, 10).await;
    crowd(&pool, callers, laps).await;
}

async fn crowd<P: LookUp>(pool: &Arc<P>, callers: u32, laps: u32) {
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let pool = Arc::clone(pool);
        running.spawn(async move {
            for lap in 0..laps {
                let id =
                    1 + i32::try_from((caller * 211 + lap * 7) % 2000).expect("a small number");
                assert_eq!(pool.look_up(id).await, id);
            }
        });
    }
    running.join_all().await;
}

trait LookUp: Send + Sync + 'static {
    /// Looks a book up on a connection of the pool; returns the ID that the row has.
    fn look_up(&self, id: i32) -> impl Future<Output = i32> + Send;
}

fn ours(url: &str, is_watched: bool) -> diesel_neon::Pool {
    let builder = diesel_neon::Pool::builder(url)
        .max_size(CONNECTIONS)
        .checkout_timeout(PATIENCE);
    let builder = match is_watched {
        true => builder
            .silence_threshold(Duration::from_secs(1))
            .before_acquire(|_, _| async { Ok(true) }.boxed()),
        false => builder,
    };
    builder.build().expect("a pool")
}

impl LookUp for diesel_neon::Pool {
    async fn look_up(&self, id: i32) -> i32 {
        let mut connection = self.get().await.expect(OK);
        let book: Book = books::table
            .find(id)
            .get_result(&mut connection)
            .await
            .expect(OK);
        book.id
    }
}

fn deadpool(url: &str) -> deadpool_postgres::Pool {
    let config = url.parse().expect("a URL");
    let recycling_method = RecyclingMethod::Fast;
    let manager =
        deadpool_postgres::Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    let builder = deadpool_postgres::Pool::builder(manager).max_size(CONNECTIONS as usize);
    let builder = builder
        .wait_timeout(Some(PATIENCE))
        .runtime(deadpool_postgres::Runtime::Tokio1);
    builder.build().expect("a pool")
}

impl LookUp for deadpool_postgres::Pool {
    async fn look_up(&self, id: i32) -> i32 {
        let connection = self.get().await.expect(OK);
        let look_up = connection.prepare_cached(LOOK_UP).await.expect(OK);
        let row = connection.query_one(&look_up, &[&id]).await.expect(OK);
        let _note: Option<String> = row.get(5);
        let _title: String = row.get(2);
        row.get(0)
    }
}

async fn bb8(url: &str) -> bb8::Pool<AsyncPgConnection> {
    let manager = AsyncDieselConnectionManager::new(url);
    let builder = bb8::Pool::builder()
        .max_size(CONNECTIONS)
        .test_on_check_out(false);
    let builder = builder.connection_timeout(PATIENCE);
    builder.build(manager).await.expect("a pool")
}

impl LookUp for bb8::Pool<AsyncPgConnection> {
    async fn look_up(&self, id: i32) -> i32 {
        let mut connection = self.get().await.expect(OK);
        let book: Book = books::table
            .find(id)
            .get_result(&mut connection)
            .await
            .expect(OK);
        book.id
    }
}

async fn sqlx(url: &str) -> sqlx::PgPool {
    let options = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE);
    options
        .test_before_acquire(false)
        .connect(url)
        .await
        .expect("a pool")
}

impl LookUp for sqlx::PgPool {
    async fn look_up(&self, id: i32) -> i32 {
        let mut connection = self.acquire().await.expect(OK);
        let row: (i32, i32, String, i32, f64, Option<String>) = sqlx::query_as(LOOK_UP)
            .bind(id)
            .fetch_one(&mut *connection)
            .await
            .expect(OK);
        row.0
    }
}

const OURS: &str = "ours";
const WATCHED: &str = "ours, with a hook and `silence_threshold`";
const DEADPOOL: &str = "deadpool-postgres";
const BB8: &str = "bb8 with diesel-async";
const SQLX: &str = "sqlx";
const POOLS: [&str; 5] = [OURS, WATCHED, DEADPOOL, BB8, SQLX];

const CONNECTIONS: u32 = 10;
/// So many look-ups are counted at least.
const LEAST: u32 = 600;
/// So long a caller waits; nobody needs it. Valgrind is slow.
const PATIENCE: Duration = Duration::from_secs(600);
