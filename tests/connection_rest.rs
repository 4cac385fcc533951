//! The unread rest of a response costs time, but neither the connection nor memory.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::time::Duration;

use common::{HANG, connect, counted, pool, start, undisturbed_for, until, users};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseErrorExt, UnreadRows};
use futures_util::future::join;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{sleep, timeout};

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    n: i32,
}

/// Returns a row every 10 ms, each so wide that the server sends it by itself.
const SLOW: &str = "SELECT n, repeat('x', 9000), pg_sleep(0.01) FROM generate_series(1, 80) AS n";

/// The rest of a response is given up if nothing of it arrives for so long, as from a server on a busy machine.
const SILENCE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn rows_that_still_come_cost_the_next_statement_time_and_not_the_connection() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        for wait in [0, 90, 110, 300] {
            undisturbed_for(SILENCE, async |given_up| {
                let before = neon.counters();
                let pool = pool(&url, |policy| policy.max_size(1));
                let mut connection = pool.get().await.unwrap();
                given_up.note();
                let first: Number = sql_query(SLOW).get_result(&mut connection).await.unwrap();
                assert_eq!(first.n, 1);
                sleep(Duration::from_millis(wait)).await;
                match connection.batch_execute("SELECT 1").await {
                    Err(error) if error.is_connection_lost() => return false,
                    next => assert_eq!(next, Ok(()), "{url}, {wait}"),
                }
                assert_eq!(counted(&neon, &url, before).connections, 1, "{url}");
                true
            })
            .await;
        }
        undisturbed_for(SILENCE, async |given_up| {
            let mut connection = connect(&url).await;
            let committed = connection
                .transaction(async |connection| {
                    let insert = diesel::insert_into(users::table).values(users::name.eq("a"));
                    insert.execute(connection).await?;
                    given_up.note();
                    sql_query(SLOW).get_result::<Number>(connection).await?;
                    sleep(Duration::from_millis(150)).await;
                    Ok::<_, Error>(())
                })
                .await;
            match committed {
                Err(error) if error.is_connection_lost() => return false,
                committed => assert_eq!(committed, Ok(()), "{url}"),
            }
            true
        })
        .await;
        neon.sql("TRUNCATE users").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_as_fast_as_they_can_keep_nobody_out() {
    let neon = start().await;
    let before = neon.counters();
    let pool = pool(&neon.pooled_url(), |policy| policy.max_size(1));
    let mut connection = pool.get().await.unwrap();
    for round in 0..10 {
        let many = "SELECT n FROM generate_series(1, 200000) AS n";
        let first: Number = sql_query(many).get_result(&mut connection).await.unwrap();
        assert_eq!(first.n, 1);
        sleep(Duration::from_millis(100)).await;
        let next = timeout(HANG, connection.batch_execute("SELECT 1")).await;
        assert_eq!(next.expect("no hang"), Ok(()), "{round}");
    }
    assert_eq!((neon.counters() - before).pooled.connections, 1);
}

#[tokio::test]
async fn a_connection_given_back_with_rows_to_come_cancels_them() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let endless =
        "SELECT n, repeat('x', 9000), pg_sleep(0.01) FROM generate_series(1, 100000) AS n";
    let mut connection = pool.get().await.unwrap();
    let first: Number = sql_query(endless)
        .get_result(&mut connection)
        .await
        .unwrap();
    assert_eq!(first.n, 1);
    sleep(Duration::from_millis(200)).await;
    until(&neon, common::RUNNING, "1").await;
    drop(connection);
    until(&neon, common::RUNNING, "0").await;
}

/// Returns 300 MB.
const LARGE: &str = "SELECT n, repeat('x', 10000) AS filling FROM generate_series(1, 30000) AS n";

async fn one(connection: &Connection) -> QueryResult<i32> {
    let query = diesel::select(1.into_sql::<Integer>());
    query.get_result(&mut &*connection).await
}

#[tokio::test]
async fn behind_rows_that_nobody_reads_a_statement_is_told_what_to_read_first() {
    let neon = start().await;
    let connection = connect(&neon.postgres_url()).await;
    let mut shared = &connection;
    let mut rows = sql_query(LARGE)
        .load_stream::<Number>(&mut shared)
        .await
        .unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().n, 1);
    for _ in 0..2 {
        let unread = timeout(HANG, one(&connection)).await.expect("no hang");
        let Err(Error::QueryBuilderError(error)) = unread else {
            panic!("{unread:?}");
        };
        assert!(error.is::<UnreadRows>(), "{error}");
    }
    let rest: Vec<_> = rows.try_collect().await.unwrap();
    assert_eq!(rest.len(), 29_999);
    assert_eq!(one(&connection).await, Ok(1));
}

#[tokio::test]
async fn behind_rows_that_are_read_slowly_a_statement_waits() {
    let neon = start().await;
    let connection = connect(&neon.postgres_url()).await;
    let read = async {
        let mut shared = &connection;
        let rows = sql_query(LARGE).load_stream::<Number>(&mut shared).await?;
        let mut rows = std::pin::pin!(rows);
        let mut read = 0;
        while let Some(row) = rows.try_next().await? {
            read += 1;
            assert_eq!(row.n, read);
            if read % 5000 == 0 {
                sleep(Duration::from_millis(200)).await;
            }
        }
        Ok::<_, Error>(read)
    };
    let both = timeout(HANG, join(read, one(&connection)));
    assert_eq!(both.await.expect("no hang"), (Ok(30_000), Ok(1)));
}
