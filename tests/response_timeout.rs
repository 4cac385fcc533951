//! How long a server may be silent while it owes a response.
#![allow(missing_docs)]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{HANG, RUNNING, pool, pool_of, scripted, start, until};
use diesel::sql_types::{Binary, Integer};
use diesel::{QueryResult, QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    Connection, DatabaseErrorExt, Establish, NamedStatements, PolicyBuilder, Pool,
    PooledConnection, RetryError,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use neon_sim::Suspension;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_millis(500);

fn limited(policy: PolicyBuilder) -> PolicyBuilder {
    policy.max_size(1).response_timeout(LIMIT)
}

/// Longer than an answer of a busy machine takes.
const LONG: Duration = Duration::from_secs(2);

fn patient(policy: PolicyBuilder) -> PolicyBuilder {
    limited(policy).response_timeout(LONG)
}

/// Takes a connection that has answered within the limit, which a busy machine may not reach at once.
async fn warm(pool: &Pool) -> PooledConnection<'_> {
    loop {
        let mut connection = pool.get().await.unwrap();
        if connection.batch_execute("SELECT 1").await.is_ok() {
            return connection;
        }
    }
}

#[tokio::test]
async fn response_timeout_ends_statements_whose_proxy_hangs() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, limited);
        for way in ["text", "statement", "transaction", "copy"] {
            let mut connection = timeout(HANG, warm(&pool)).await.unwrap();
            neon.suspend(Suspension::Silent).await;
            let hangs = async {
                match way {
                    "text" => connection.batch_execute("SELECT 1").await,
                    "statement" => sql_query("SELECT 1")
                        .execute(&mut connection)
                        .await
                        .map(drop),
                    "transaction" => {
                        let work = connection.transaction(async |connection| {
                            connection.batch_execute("SELECT 1").await
                        });
                        work.await
                    }
                    _ => {
                        let copy = "COPY users (name) FROM STDIN";
                        connection.copy_in(copy).await.map(drop)
                    }
                }
            };
            let error = timeout(HANG, hangs).await.expect("no hang").unwrap_err();
            assert!(error.is_response_timeout(), "{url}, {way}: {error}");
            assert!(error.is_connection_lost() && error.is_transient(), "{way}");
            assert!(
                error.to_string().contains("500ms (response_timeout)"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn response_timeout_ends_a_copy_whose_data_is_not_taken_or_not_acknowledged() {
    let neon = start().await;
    // This one takes no more than what fits into the sockets' buffers.
    let serve = async |mut session: scripted::Session, _| {
        session.asked().await;
        session.say(&scripted::message(b'G', &[0, 0, 0])).await;
        std::future::pending::<()>().await;
    };
    let (stuck, _server) = scripted::start(serve).await;
    for (url, is_read) in [(neon.url(), true), (stuck, false)] {
        let pool = pool(&url, |policy| {
            patient(policy).named_statements(NamedStatements::Never)
        });
        let mut connection = pool.get().await.unwrap();
        let copy = connection.copy_in("COPY users (name) FROM STDIN");
        let mut copy = timeout(HANG, copy).await.expect("no hang").unwrap();
        neon.suspend(Suspension::Silent).await;
        let data = vec![b'x'; 1024 * 1024];
        let copied = async {
            copy.send(&data).await?;
            if !is_read {
                loop {
                    copy.send(&data).await?;
                }
            }
            copy.finish().await
        };
        let error = timeout(HANG, copied).await.expect("no hang").unwrap_err();
        assert!(error.is_response_timeout(), "{error}");
    }
}

#[tokio::test]
async fn response_timeout_ends_a_statement_that_runs_but_not_one_whose_rows_keep_arriving() {
    let neon = start().await;
    let urls = [neon.postgres_url(), neon.url(), neon.pooled_url()];
    let routes = urls.iter().map(async |url| {
        let pool = pool(url, patient);
        let mut connection = pool.get().await.unwrap();
        // Each is more than the server keeps back.
        let rows = "SELECT n, repeat('x', 9000), pg_sleep(0.5) FROM generate_series(1, 6) AS n";
        let slow = timeout(HANG, connection.batch_execute(rows)).await;
        assert_eq!(slow.expect("no hang"), Ok(()), "{url}");

        // An idle connection is not silent in this sense, and neither is one whose rows nobody reads.
        sleep(LONG * 3 / 2).await;
        let mut rows = connection
            .copy_out(&format!("COPY ({rows}) TO STDOUT"))
            .await
            .unwrap();
        let mut count = 0;
        while let Some(row) = rows.next().await {
            row.unwrap();
            count += 1;
            if count == 3 {
                sleep(LONG * 3 / 2).await;
            }
        }
        assert_eq!(count, 6, "{url}");
        drop(rows);

        let running = connection.batch_execute("SELECT pg_sleep(600)");
        let error = timeout(HANG, running).await.expect("no hang").unwrap_err();
        assert!(error.is_response_timeout(), "{url}: {error}");
        until(&neon, RUNNING, "0").await;
        drop(connection);
        let next = pool.get().await.unwrap().batch_execute("SELECT 1").await;
        assert_eq!(next, Ok(()), "{url}");
    });
    join_all(routes).await;
}

#[tokio::test]
async fn after_response_timeout_a_transaction_is_done_again_only_if_it_is_idempotent() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| patient(policy).retry_attempts(2));
    for is_idempotent in [false, true] {
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            attempts.fetch_add(1, Ordering::Relaxed);
            connection.batch_execute("SELECT pg_sleep(600)").await?;
            Ok::<_, RetryError>(())
        };
        let done = async {
            match is_idempotent {
                true => pool.retry().idempotent().transaction(work).await,
                false => pool.retry().transaction(work).await,
            }
        };
        let failed = timeout(HANG, done).await.expect("no hang").unwrap_err();
        let RetryError::Query(error) = failed else {
            panic!("{failed}");
        };
        assert!(error.is_response_timeout(), "{error}");
        assert_eq!(attempts.into_inner(), 1 + u32::from(is_idempotent));
        until(&neon, RUNNING, "0").await;
    }
}

#[tokio::test]
async fn response_timeout_does_not_end_a_request_that_is_still_being_sent() {
    const PIECE: usize = 1024 * 1024;
    // This one reads 10 MiB in a second.
    let serve = async |mut session: scripted::Session, _| {
        while let Ok(tag) = session.stream.read_u8().await {
            let mut left = session.stream.read_u32().await.unwrap() as usize - 4;
            while left > 0 {
                let mut piece = vec![0; left.min(PIECE)];
                session.stream.read_exact(&mut piece).await.unwrap();
                left -= piece.len();
                if piece.len() == PIECE {
                    sleep(Duration::from_millis(100)).await;
                }
            }
            match tag {
                scripted::tag::frontend::EXECUTE | scripted::tag::frontend::QUERY => {
                    session.say(&scripted::complete("SELECT 1")).await;
                }
                scripted::tag::frontend::DESCRIBE => {
                    session
                        .say(&scripted::message(scripted::tag::NO_DATA, &[]))
                        .await;
                }
                _ => {}
            }
            if tag == scripted::tag::frontend::QUERY || tag == scripted::tag::frontend::SYNC {
                session.say(&scripted::ready(b'I')).await;
            }
        }
    };
    let (url, _server) = scripted::start(serve).await;
    // Longer than what the sockets' buffers hold takes to be read.
    let limit = Duration::from_millis(4500);
    let pool = pool(&url, |policy| policy.max_size(1).response_timeout(limit));
    let long = 70 * PIECE;
    let mut connection = pool.get().await.unwrap();
    let text = format!("SELECT '{}'", "x".repeat(long));
    let sent = timeout(HANG, connection.batch_execute(&text)).await;
    assert_eq!(sent.expect("no hang"), Ok(()));
    let bind = sql_query("SELECT $1").bind::<Binary, _>(vec![0; long]);
    let sent = timeout(HANG, bind.execute(&mut connection)).await;
    assert_eq!(sent.expect("no hang"), Ok(1));
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    n: i32,
}

#[tokio::test]
async fn response_timeout_does_not_end_a_session_whose_rows_are_read_slowly() {
    async fn read<C>(pool: &Pool<C>) -> QueryResult<i32>
    where
        C: Establish + AsyncConnection<Backend = diesel::pg::Pg>,
    {
        let mut connection = pool.get().await.unwrap();
        // More than the sockets' buffers hold.
        let rows = "SELECT n, repeat('x', 9000) FROM generate_series(1, 3000) AS n";
        let rows = sql_query(rows).load_stream::<Row>(&mut *connection).await?;
        let mut rows = Box::pin(rows);
        let mut last = 0;
        while let Some(row) = rows.next().await {
            last = row?.n;
            if last % 1000 == 5 {
                sleep(LONG * 3 / 2).await;
            }
        }
        Ok(last)
    }

    let neon = start().await;
    let urls = [neon.postgres_url(), neon.url(), neon.pooled_url()];
    let routes = join_all(urls.iter().map(async |url| {
        let own = pool(url, patient);
        assert_eq!(timeout(HANG, read(&own)).await.unwrap(), Ok(3000), "{url}");
    }));
    let pool = pool_of::<AsyncPgConnection>(&neon.url(), patient);
    let (_, theirs) = tokio::join!(routes, timeout(HANG, read(&pool)));
    assert_eq!(theirs.unwrap(), Ok(3000));
}

#[tokio::test]
async fn response_timeout_ends_those_of_async_pg_connection_as_well() {
    let neon = start().await;
    let pool = pool_of::<AsyncPgConnection>(&neon.url(), patient);
    let mut connection = pool.get().await.unwrap();
    sleep(LONG * 3 / 2).await;
    connection
        .batch_execute("SELECT pg_sleep(0.1)")
        .await
        .unwrap();
    neon.suspend(Suspension::Silent).await;
    let hangs = timeout(HANG, connection.batch_execute("SELECT 1")).await;
    let error = hangs.expect("no hang").unwrap_err();
    assert!(error.is_connection_lost(), "{error}");
    drop(connection);
    let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
    connection.batch_execute("SELECT 1").await.unwrap();
}
