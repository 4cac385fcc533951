//! The failures after which a `Retry` does work again, and those after which it never does.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseErrorExt, Establish, Pool, RetryError};
use neon_sim::{NeonSim, Suspension};
use tokio::time::sleep;

use common::{neon, pool, pool_of, until};

async fn start() -> (NeonSim, Vec<Pool>) {
    let neon = neon().await;
    neon.sql(
        "SET ROLE neondb_owner; CREATE TABLE notes (id SERIAL PRIMARY KEY, text TEXT UNIQUE NOT NULL)",
    )
    .await
    .unwrap();
    let pools = [neon.url(), neon.pooled_url()].map(|url| pool(&url, |policy| policy));
    (neon, pools.into())
}

async fn note(connection: &mut Connection, text: &str) -> QueryResult<()> {
    let statement = diesel::sql_query("INSERT INTO notes (text) VALUES ($1)");
    let statement = statement.bind::<diesel::sql_types::Text, _>(text.to_owned());
    statement.execute(connection).await.map(drop)
}

async fn notes(neon: &NeonSim) -> i64 {
    let rows = neon.sql("SELECT count(*) FROM notes").await.unwrap();
    rows[0][0].as_ref().unwrap().parse().unwrap()
}

async fn fail_with(connection: &mut Connection, sqlstate: &str) -> QueryResult<()> {
    let statement = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$");
    connection.batch_execute(&statement).await
}

const DIE: &str = "SELECT pg_terminate_backend(pg_backend_pid())";

#[tokio::test]
async fn a_transaction_that_met_another_is_done_again() {
    let (neon, pools) = start().await;
    for (i, pool) in pools.iter().enumerate() {
        for sqlstate in ["40001", "40P01"] {
            let attempts = AtomicU32::new(0);
            pool.retry()
                .transaction(async |connection| {
                    note(connection, &format!("{i} {sqlstate}")).await?;
                    if attempts.fetch_add(1, Ordering::Relaxed) < 2 {
                        fail_with(connection, sqlstate).await?;
                    }
                    Ok::<_, RetryError>(())
                })
                .await
                .unwrap();
            assert_eq!(attempts.into_inner(), 3);
        }
    }
    assert_eq!(notes(&neon).await, 4);
}

#[tokio::test]
async fn a_connection_lost_before_commit_leaves_nothing_and_is_replaced() {
    let (neon, pools) = start().await;
    for (i, pool) in pools.iter().enumerate() {
        let attempts = AtomicU32::new(0);
        let id: i64 = pool
            .retry()
            .transaction(async |connection| {
                note(connection, &format!("lost {i}")).await?;
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                    connection.batch_execute(DIE).await?;
                }
                let id = diesel::dsl::sql::<BigInt>("SELECT max(id)::bigint FROM notes");
                Ok::<_, RetryError>(id.get_result(connection).await?)
            })
            .await
            .unwrap();
        assert!(id > 0);
        assert_eq!(attempts.into_inner(), 2);
        assert_eq!(notes(&neon).await, i as i64 + 1);
    }
}

#[tokio::test]
async fn a_connection_lost_by_commit_is_not_retried_unless_declared_idempotent() {
    let (neon, pools) = start().await;
    // The connection is lost while the client waits for the response to COMMIT.
    neon.sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER die AFTER INSERT ON notes
           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await
    .unwrap();
    for pool in &pools {
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            attempts.fetch_add(1, Ordering::Relaxed);
            note(connection, "perhaps").await.map_err(RetryError::from)
        };
        let error = pool.retry().transaction(work).await.unwrap_err();
        assert!(
            matches!(&error, RetryError::Query(error) if error.is_connection_lost()),
            "{error}"
        );
        assert_eq!(attempts.swap(0, Ordering::Relaxed), 1);

        pool.retry()
            .idempotent()
            .transaction(work)
            .await
            .unwrap_err();
        assert_eq!(attempts.into_inner(), pool.policy().retry_attempts());
    }
}

#[tokio::test]
async fn a_statement_that_was_sent_is_not_sent_again_unless_declared_idempotent() {
    let (neon, pools) = start().await;
    for pool in &pools {
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0 => connection.batch_execute(DIE).await?,
                _ => connection.batch_execute("SELECT 1").await?,
            }
            Ok::<_, RetryError>(())
        };
        pool.retry().run(work).await.unwrap_err();
        assert_eq!(attempts.swap(0, Ordering::Relaxed), 1);
        pool.retry().idempotent().run(work).await.unwrap();
        assert_eq!(attempts.into_inner(), 2);
    }
    drop(neon);
}

#[tokio::test]
async fn a_connection_that_died_before_anything_was_sent_is_replaced() {
    let (neon, pools) = start().await;
    for (i, pool) in pools.iter().enumerate() {
        let attempts = AtomicU32::new(0);
        pool.retry()
            .run(async |connection| {
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                    neon.suspend(Suspension::Normal).await;
                }
                note(connection, &format!("once {i}"))
                    .await
                    .map_err(RetryError::from)
            })
            .await
            .unwrap();
        assert_eq!(attempts.into_inner(), 2);
    }
    assert_eq!(notes(&neon).await, 2);
}

#[tokio::test]
async fn what_will_fail_again_is_not_tried_again() {
    let (_neon, pools) = start().await;
    for pool in &pools {
        let attempts = AtomicU32::new(0);
        let error = pool
            .retry()
            .idempotent()
            .transaction(async |connection| {
                attempts.fetch_add(1, Ordering::Relaxed);
                note(connection, "twice").await?;
                note(connection, "twice").await?;
                Ok::<_, RetryError>(())
            })
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            RetryError::Query(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))
        ));
        assert_eq!(attempts.into_inner(), 1);
    }
}

#[tokio::test]
async fn retry_attempts_bounds_the_attempts() {
    let (neon, _) = start().await;
    let pool = pool(&neon.url(), |policy| policy.retry_attempts(3));
    let attempts = AtomicU32::new(0);
    let result: Result<(), RetryError> = pool
        .retry()
        .transaction(async |connection| {
            attempts.fetch_add(1, Ordering::Relaxed);
            Ok(fail_with(connection, "40001").await?)
        })
        .await;
    result.unwrap_err();
    assert_eq!(attempts.into_inner(), 3);
}

#[tokio::test]
async fn work_can_be_spawned() {
    let (_neon, pools) = start().await;
    let pool = pools[0].clone();
    let task = tokio::spawn(async move {
        let text = String::from("spawned");
        pool.retry()
            .transaction(async |connection| {
                note(connection, &text).await?;
                Ok::<_, RetryError>(())
            })
            .await?;
        pool.retry()
            .run(async |connection| Ok::<_, RetryError>(note(connection, "too").await?))
            .await
    });
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_the_statement_itself_is_not_tried_again() {
    let (_neon, pools) = start().await;
    let many = "($1),".repeat(70_000);
    let many = format!(
        "INSERT INTO notes (text) VALUES {}",
        many.trim_end_matches(',')
    );
    for pool in &pools {
        for (sql, binds) in [("SELECT $1::text", 0), ("SELECT '\0'", 0), (&many, 70_000)] {
            let attempts = AtomicU32::new(0);
            let work = async |connection: &mut Connection| {
                attempts.fetch_add(1, Ordering::Relaxed);
                let mut statement = diesel::sql_query(sql).into_boxed();
                for _ in 0..binds {
                    statement = statement.bind::<diesel::sql_types::Text, _>("x");
                }
                statement.execute(connection).await?;
                Ok::<_, RetryError>(())
            };
            let error = match pool.retry().idempotent().run(work).await.unwrap_err() {
                RetryError::Query(error) => error,
                error => panic!("{error}"),
            };
            let sql = &sql[..sql.len().min(20)];
            assert!(
                !error.is_transient() && !error.is_connection_lost(),
                "{sql}: {error}"
            );
            assert!(
                matches!(
                    error,
                    Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
                ),
                "{sql}: {error:?}"
            );
            assert_eq!(attempts.into_inner(), 1, "{sql}: {error}");
        }
        // The error has not cost the connection.
        assert_eq!(pool.status().connects.opened, 1);
    }
}

#[tokio::test]
async fn a_lock_that_nowait_refuses_is_not_waited_for() {
    let (_neon, pools) = start().await;
    for pool in &pools {
        let mut holder = pool.get().await.unwrap();
        holder.batch_execute("BEGIN; LOCK notes").await.unwrap();
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            attempts.fetch_add(1, Ordering::Relaxed);
            connection.batch_execute("LOCK notes NOWAIT").await?;
            Ok::<_, RetryError>(())
        };
        let error = pool
            .retry()
            .idempotent()
            .transaction(work)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, RetryError::Query(error) if error.sqlstate() == Some("55P03") && error.is_transient()),
            "{error}"
        );
        pool.retry().transaction(work).await.unwrap_err();
        assert_eq!(attempts.into_inner(), 2);
        holder.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// The work's own COMMIT has committed its first part, so that a retry would do that part twice.
#[tokio::test]
async fn work_that_ends_the_transaction_itself_is_not_done_again() {
    let (neon, pools) = start().await;
    let theirs = pool_of::<AsyncPgConnection>(&neon.url(), |policy| policy);
    let endings = [
        "INSERT INTO notes (text) VALUES ('{}'); COMMIT",
        "INSERT INTO notes (text) VALUES ('{}'); COMMIT AND CHAIN",
        "INSERT INTO notes (text) VALUES ('{}'); COMMIT; BEGIN",
        "ROLLBACK; BEGIN; INSERT INTO notes (text) VALUES ('{}'); COMMIT; BEGIN",
    ];
    let failures = [
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$",
        DIE,
    ];
    async fn once<C: Establish + SimpleAsyncConnection>(
        pool: &Pool<C>,
        ending: &str,
        failure: &str,
    ) {
        let attempts = AtomicU32::new(0);
        let outcome = pool.retry().transaction(async |connection: &mut C| {
            let nth = attempts.fetch_add(1, Ordering::Relaxed);
            let text = format!("{nth} {:x}", fastrand::u64(..));
            connection
                .batch_execute(&ending.replace("{}", &text))
                .await?;
            connection.batch_execute(failure).await?;
            Ok::<_, RetryError>(())
        });
        outcome.await.unwrap_err();
        assert_eq!(attempts.into_inner(), 1, "{ending}, {failure}");
    }
    let mut written = 0;
    for ending in endings {
        for failure in failures {
            for pool in &pools {
                once(pool, ending, failure).await;
            }
            once(&theirs, ending, failure).await;
            written += 3;
            assert_eq!(notes(&neon).await, written, "{ending}, {failure}");
        }
    }

    // A savepoint's end is not the transaction's, and idempotent work is retried.
    for (statement, attempts) in [("SAVEPOINT a; RELEASE a", 2), ("COMMIT; BEGIN", 2)] {
        let done = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            connection.batch_execute(statement).await?;
            if done.fetch_add(1, Ordering::Relaxed) == 0 {
                fail_with(connection, "40001").await?;
            }
            Ok::<_, RetryError>(())
        };
        match statement.starts_with("COMMIT") {
            true => pools[0]
                .retry()
                .idempotent()
                .transaction(work)
                .await
                .unwrap(),
            false => pools[0].retry().transaction(work).await.unwrap(),
        }
        assert_eq!(done.into_inner(), attempts, "{statement}");
    }
}

/// Counts the sessions that have run their savepoint.
const SET: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE state LIKE 'idle%' AND query LIKE 'SAVEPOINT a;%'";

/// It is unknown whether the work's own COMMIT counted: the connection was lost before its response.
#[tokio::test]
async fn work_whose_own_commit_has_no_answer_is_not_done_again_unless_declared_idempotent() {
    let (neon, pools) = start().await;
    let theirs = pool_of::<AsyncPgConnection>(&neon.url(), |policy| policy);
    async fn lose_answer<C>(neon: &NeonSim, pool: &Pool<C>, ending: &str, idempotent: bool) -> u32
    where
        C: Establish + SimpleAsyncConnection,
        diesel::query_builder::SqlQuery: diesel_async::methods::ExecuteDsl<C>,
    {
        let before = notes(neon).await;
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut C| {
            let nth = attempts.fetch_add(1, Ordering::Relaxed);
            let insert = format!(
                "INSERT INTO notes (text) VALUES ('{nth} {:x}')",
                fastrand::u64(..)
            );
            connection.batch_execute(&insert).await?;
            if nth > 0 {
                return Ok(());
            }
            match ending.starts_with("extended") {
                // The answer to what prepares it must come.
                true => neon.set_latency(Duration::from_secs(1)),
                false => neon.lose_responses(),
            }
            match ending.strip_prefix("extended ") {
                Some(ending) => diesel::sql_query(ending)
                    .execute(connection)
                    .await
                    .map(drop)?,
                None => connection.batch_execute(ending).await?,
            }
            Ok::<_, RetryError>(())
        };
        let lost = async {
            match ending.contains("SAVEPOINT") {
                // It has arrived by then, and its answer has not.
                true => until(neon, SET, "1").await,
                false => {
                    while notes(neon).await == before {
                        sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            neon.suspend(Suspension::Reset).await;
            neon.set_latency(Duration::ZERO);
        };
        let done = async {
            match idempotent {
                true => pool.retry().idempotent().transaction(work).await,
                false => pool.retry().transaction(work).await,
            }
        };
        let (done, ()) = futures_util::future::join(done, lost).await;
        let attempts = attempts.into_inner();
        assert_eq!(done.is_ok(), attempts > 1, "{ending}");
        attempts
    }
    for ending in [
        "COMMIT",
        "-- done\n/* and */ end work;",
        "SELECT 'a'; commit; SELECT 1",
        "extended COMMIT",
    ] {
        for pool in &pools {
            assert_eq!(lose_answer(&neon, pool, ending, false).await, 1, "{ending}");
        }
        let attempts = lose_answer(&neon, &theirs, ending, false).await;
        assert_eq!(attempts, 1, "{ending}, AsyncPgConnection");
    }
    assert_eq!(notes(&neon).await, 12);
    // What ends a savepoint ends no transaction.
    let savepoint = "SAVEPOINT a; ROLLBACK TO SAVEPOINT a";
    assert_eq!(lose_answer(&neon, &pools[0], savepoint, false).await, 2);
    assert_eq!(lose_answer(&neon, &pools[0], "COMMIT", true).await, 2);
}
