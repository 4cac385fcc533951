//! What a user who comes from `AsyncPgConnection` could notice.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::sync::{Arc, Mutex};

use common::{HANG, connect, outline, routes, start, users};
use diesel::connection::InstrumentationEvent;
use diesel::pg::{Pg, PgQueryBuilder};
use diesel::prelude::*;
use diesel::query_builder::{QueryBuilder, QueryFragment};
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, PoolableConnection, bb8};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager,
};
use diesel_neon::{Connection, DatabaseErrorExt};
use tokio::time::timeout;

type Events = Arc<Mutex<Vec<String>>>;

fn watch(connection: &mut impl AsyncConnection) -> Events {
    let events = Events::default();
    let seen = Arc::clone(&events);
    connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        seen.lock().unwrap().push(outline(&event));
    });
    events
}

/// Begins, commits and rolls back transactions in every way, with and without statements in them.
async fn transactions<C>(connection: &mut C) -> Vec<String>
where
    C: AsyncConnection<Backend = Pg>,
{
    let events = watch(connection);
    for sends in [false, true] {
        for commits in [true, false] {
            C::TransactionManager::begin_transaction(connection)
                .await
                .unwrap();
            for inner_commits in [true, false] {
                C::TransactionManager::begin_transaction(connection)
                    .await
                    .unwrap();
                if sends {
                    let one = sql_query("SELECT 1");
                    connection.execute_returning_count(one).await.unwrap();
                }
                if sends && !inner_commits {
                    let wrong = sql_query("SELECT wrong");
                    connection.execute_returning_count(wrong).await.unwrap_err();
                    connection.batch_execute("SELECT 2").await.unwrap_err();
                }
                end(connection, inner_commits).await;
            }
            end(connection, commits).await;
        }
    }
    events.lock().unwrap().clone()
}

async fn end<C: AsyncConnection<Backend = Pg>>(connection: &mut C, commits: bool) {
    let ended = match commits {
        true => C::TransactionManager::commit_transaction(connection).await,
        false => C::TransactionManager::rollback_transaction(connection).await,
    };
    ended.unwrap();
}

#[tokio::test]
async fn instrumentation_is_told_what_other_connections_tell() {
    let neon = start().await;
    let url = neon.postgres_url();
    let mut theirs = AsyncPgConnection::establish(&url).await.unwrap();
    let expected = transactions(&mut theirs).await;
    let told = |sql: &str| expected.contains(&format!("finish {sql}"));
    assert!(told("BEGIN") && told("SAVEPOINT diesel_savepoint_1") && told("COMMIT"));
    let mut ours = transactions(&mut connect(&url).await).await;
    // Only ours names what comes again though Diesel does not cache it; all else is told alike.
    let all = ours.len();
    ours.retain(|event| !event.starts_with("cache "));
    assert_eq!(ours, expected);
    assert_eq!(all - ours.len(), 2, "SELECT 1 and SELECT wrong");
}

#[tokio::test]
async fn what_is_named_in_a_test_transaction_is_told() {
    let neon = start().await;
    // The host's name does not tell that there is no pooler.
    let url = neon.postgres_url();
    for batch in [true, false] {
        let connection = &mut connect(&url).await;
        connection.begin_test_transaction().await.unwrap();
        let setting = "SET LOCAL work_mem = '8MB'";
        match batch {
            true => connection.batch_execute(setting).await.unwrap(),
            false => drop(sql_query(setting).execute(connection).await.unwrap()),
        }
        let events = watch(connection);
        let one = diesel::select(1.into_sql::<Integer>());
        one.get_result::<i32>(connection).await.unwrap();
        let events = events.lock().unwrap().clone();
        assert!(
            events.iter().any(|event| event.starts_with("cache ")),
            "{batch}: {events:?}"
        );
    }
}

#[tokio::test]
async fn a_copy_in_the_wrong_place_is_an_error_that_names_the_right_one() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        neon.sql("TRUNCATE users; INSERT INTO users (name) SELECT 'n' || i FROM generate_series(1, 5000) i")
            .await
            .unwrap();
        let connection = &mut connect(&url).await;
        for (copy, named) in [
            ("COPY users TO STDOUT", "copy_out"),
            ("COPY users FROM STDIN", "copy_in"),
        ] {
            let executed = sql_query(copy).execute(connection);
            let executed = timeout(HANG, executed).await.unwrap().unwrap_err();
            let batch = connection.batch_execute(copy);
            let batch = timeout(HANG, batch).await.unwrap().unwrap_err();
            let loaded = sql_query(copy).load::<Nothing>(connection);
            let loaded = timeout(HANG, loaded).await.unwrap().unwrap_err();
            for error in [executed, batch, loaded] {
                assert!(error.to_string().contains(named), "{route}: {error}");
                assert!(!error.is_transient(), "{route}: {error}");
                assert!(error.sqlstate().is_some(), "{route}: {error}");
            }
            // A COPY out harms neither the connection nor a transaction.
            let inside = connection
                .transaction(async |connection| {
                    sql_query(copy).execute(connection).await.unwrap_err();
                    users::table.count().get_result::<i64>(connection).await
                })
                .await;
            assert_eq!(inside.is_ok(), named == "copy_out", "{route}: {inside:?}");
            let count = users::table.count().get_result(connection).await;
            assert_eq!(count, Ok(5000_i64), "{route}");
        }
    }
}

#[derive(Debug, QueryableByName)]
struct Nothing {}

#[tokio::test]
async fn a_transaction_builder_is_a_query_fragment() {
    let neon = start().await;
    let url = neon.postgres_url();
    let ours = &mut connect(&url).await;
    let theirs = &mut AsyncPgConnection::establish(&url).await.unwrap();
    macro_rules! same {
        ($($option:ident).*) => {
            let ours = sql(&ours.build_transaction()$(.$option())*);
            let theirs = sql(&theirs.build_transaction()$(.$option())*);
            assert_eq!(ours, theirs);
        };
    }
    let plain = sql(&ours.build_transaction());
    assert_eq!(plain, "BEGIN TRANSACTION");
    same!(read_committed.read_write.not_deferrable);
    same!(repeatable_read.read_only.deferrable);
    same!(deferrable.read_only.serializable);
}

fn sql(fragment: &impl QueryFragment<Pg>) -> String {
    let mut builder = PgQueryBuilder::default();
    fragment.to_sql(&mut builder, &Pg).unwrap();
    builder.finish()
}

#[tokio::test]
async fn diesel_asyncs_own_managers_take_connections() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let manager = AsyncDieselConnectionManager::<Connection>::new(url);
        let pool: bb8::Pool<Connection> = bb8::Pool::builder()
            .max_size(1)
            .build(manager)
            .await
            .unwrap();
        let process = async || {
            let connection = &mut pool.get().await.unwrap();
            let pid = diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()"));
            pid.get_result::<i32>(connection).await.unwrap()
        };
        let first = process().await;
        assert_eq!(process().await, first, "{route}");

        // A connection left in a transaction is not handed on.
        let mut connection = pool.get().await.unwrap();
        connection.batch_execute("BEGIN").await.unwrap();
        assert!(connection.is_broken(), "{route}");
        drop(connection);
        let mut connection = pool.get().await.unwrap();
        assert!(!connection.is_broken(), "{route}");
        connection.begin_test_transaction().await.unwrap();
        sql_query("SELECT 1")
            .execute(&mut connection)
            .await
            .unwrap();
        assert!(!connection.is_broken(), "{route}");
        let terminated = sql_query("SELECT pg_terminate_backend(pg_backend_pid())");
        terminated.execute(&mut connection).await.unwrap_err();
        assert!(connection.is_broken(), "{route}");
        drop(connection);
        process().await;
    }
}

#[tokio::test]
async fn the_place_of_an_error_inside_of_an_executed_string_is_told() {
    let neon = start().await;
    let url = neon.postgres_url();
    let wrong = "DO $$ BEGIN EXECUTE 'SELECT nonsense FROM pg_class'; END $$";
    let mut theirs = AsyncPgConnection::establish(&url).await.unwrap();
    let expected = theirs.batch_execute(wrong).await.unwrap_err();
    assert_eq!(position(&expected), Some(8));

    let connection = &mut connect(&url).await;
    let batch = connection.batch_execute(wrong).await.unwrap_err();
    let executed = sql_query(wrong).execute(connection).await.unwrap_err();
    let inside = connection
        .transaction(async |connection| connection.batch_execute(wrong).await)
        .await;
    for error in [batch, executed, inside.unwrap_err()] {
        assert_eq!(position(&error), Some(8), "{error}");
        let query = error.internal_query();
        assert_eq!(query, Some("SELECT nonsense FROM pg_class"), "{error}");
    }
    let plain = sql_query("SELECT nonsense").execute(connection).await;
    assert_eq!(plain.unwrap_err().internal_query(), None);
}

fn position(error: &Error) -> Option<i32> {
    match error {
        Error::DatabaseError(_, information) => information.statement_position(),
        _ => None,
    }
}

#[tokio::test]
async fn what_cannot_be_parsed_fails_inside_of_the_transaction_that_rode_with_it() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        for copies in [false, true] {
            for first in [true, false] {
                neon.sql("TRUNCATE users").await.unwrap();
                let connection = &mut connect(&url).await;
                let wrong = async |connection: &mut Connection| {
                    let wrong = match copies {
                        true => connection.copy_out("COPYY users TO STDOUT").await.map(drop),
                        false => connection.batch_execute("SELECTT 1").await,
                    };
                    let error = wrong.unwrap_err();
                    assert_eq!(error.sqlstate(), Some("42601"), "{route}: {error}");
                    assert_eq!(position(&error), Some(1), "{route}: {error}");
                    let next = sql_query("SELECT 1").execute(connection).await.unwrap_err();
                    assert!(next.to_string().contains("is aborted"), "{route}: {next}");
                    Err::<(), _>(error)
                };
                let outer = connection.transaction(async |connection| {
                    if !first {
                        sql_query("SELECT 1").execute(connection).await?;
                    }
                    let inner = connection.transaction(async |connection| {
                        connection.transaction(wrong).await.unwrap_err();
                        let insert = diesel::insert_into(users::table);
                        insert
                            .values(users::name.eq("inner"))
                            .execute(connection)
                            .await
                    });
                    assert_eq!(inner.await, Ok(1), "{route}, {copies}, {first}");
                    connection.transaction(wrong).await.unwrap_err();
                    let insert = diesel::insert_into(users::table);
                    insert
                        .values(users::name.eq("outer"))
                        .execute(connection)
                        .await
                });
                assert_eq!(outer.await, Ok(1), "{route}, {copies}, {first}");
                let count = users::table.count().get_result(connection).await;
                assert_eq!(count, Ok(2_i64), "{route}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_to_run_is_no_failure_in_a_transaction() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        for nothing in ["", " ; ", "-- nothing", "/* nothing */"] {
            let done = connection
                .transaction(async |connection| {
                    connection.batch_execute(nothing).await?;
                    connection
                        .transaction(async |connection| connection.batch_execute(nothing).await)
                        .await?;
                    sql_query("SAVEPOINT a").execute(connection).await
                })
                .await;
            assert_eq!(done, Ok(0), "{route}: {nothing:?}");
        }
    }
}
