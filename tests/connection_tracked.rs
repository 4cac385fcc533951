//! `Connection` behind a PgBouncer that tracks prepared statements, as Neon's does: the tests of the connection in
//! general, and those of named statements.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]
// Each module has its own path to the shared set-up.
#![allow(clippy::duplicate_mod)]

#[path = "connection_abandonment.rs"]
mod abandonment;
mod common;
#[path = "connection.rs"]
mod connection;
#[path = "connection_copy.rs"]
mod copy;
#[path = "connection_flights.rs"]
mod flights;
#[path = "connection_pooler.rs"]
mod pooler;
#[path = "connection_transactions.rs"]
mod transactions;
#[path = "connection_types.rs"]
mod types;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{HANG, connect, counted, neon_with, pool, prepared, start, users};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    ConnectErrorKind, Connection, DatabaseErrorExt, NamedStatements, PoolError, RetryError,
};
use futures_util::future::{join_all, join5};
use tokio::time::timeout;

#[tokio::test]
async fn statements_of_two_sessions_are_not_taken_for_each_other_if_the_pooler_ceases_to_track() {
    let neon = neon_with(|neon| neon.pgbouncer_settings([("default_pool_size", "2")])).await;
    let url = neon.pgbouncer_url();
    let pool = pool(&url, |policy| policy.max_size(3));
    let mut first = pool.get().await.unwrap();
    assert_eq!(plus_one(&mut first, 1).await, Ok(2));
    let (mut one, mut other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let command = "SET max_prepared_statements = 0";
    neon.pgbouncer_command(command).await.unwrap();
    assert_eq!(plus_one(&mut one, 1).await, Ok(2));
    // Another client has the server that has just run it, so that the next statement runs on another one.
    let mut holder = connect(&url).await;
    holder.batch_execute("BEGIN").await.unwrap();
    let minus_one = diesel::select(1.into_sql::<Integer>() - 1);
    assert_eq!(minus_one.get_result(&mut other).await, Ok(0));
    assert_eq!(plus_one(&mut one, 1).await, Ok(2));
}

async fn plus_one(connection: &mut Connection, n: i32) -> QueryResult<i32> {
    let sum = diesel::select(n.into_sql::<Integer>() + 1);
    sum.get_result(connection).await
}

#[tokio::test]
async fn the_pooler_is_asked_once_and_statements_that_come_again_run_by_name() {
    let neon = start().await;
    let url = neon.pooled_url();
    let before = neon.counters();
    let pool = pool(&url, |policy| policy.max_size(3));
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(pool.get().await.unwrap());
    }
    for connection in &mut connections {
        assert_eq!(plus_one(connection, 0).await, Ok(1));
    }
    let asked = neon.counters();
    for n in 1..5 {
        for connection in &mut connections {
            assert_eq!(plus_one(connection, n).await, Ok(n + 1));
        }
    }
    // One probe, and a name on each connection; the connection of the probe names its statement one turn later.
    assert_eq!(counted(&neon, &url, before).named_parses, 4);
    let after = counted(&neon, &url, asked);
    assert_eq!((after.named_parses, after.flights), (1, 12));
    // The server knows the statement once, by PgBouncer's own name, and the probe.
    let names = prepared(&mut connections[0]).await;
    assert_eq!(names.len(), 2, "{names:?}");
    let pgbouncers = |name: &String| name.starts_with("PGBOUNCER_");
    assert!(names.iter().all(pgbouncers), "{names:?}");
}

#[tokio::test]
async fn names_follow_a_session_from_server_to_server() {
    let neon = start().await;
    let url = neon.pooled_url();
    let a = &mut connect(&url).await;
    for n in 0..3 {
        assert_eq!(plus_one(a, n).await, Ok(n + 1));
    }
    let before = neon.counters();
    let mut others = Vec::new();
    for n in 0..10 {
        // An open transaction keeps the server that `a` has just used.
        let mut other = connect(&neon.pgbouncer_url()).await;
        other.batch_execute("BEGIN").await.unwrap();
        others.push(other);
        assert_eq!(plus_one(a, n).await, Ok(n + 1));
    }
    let after = counted(&neon, &url, before);
    assert_eq!((after.named_parses, after.flights), (0, 10));
    let servers = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'";
    assert_eq!(
        neon.sql(servers).await.unwrap()[0][0].as_deref(),
        Some("11")
    );
}

#[tokio::test]
async fn a_cache_smaller_than_the_statements_closes_what_makes_room() {
    let neon = start().await;
    let pool = pool(&neon.pooled_url(), |policy| {
        policy.max_size(2).statement_cache(2)
    });
    let (mut a, mut b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    for n in 0..20 {
        for connection in [&mut a, &mut b] {
            assert_eq!(plus_one(connection, n).await, Ok(n + 1));
            let count = users::table.count().get_result::<i64>(connection).await;
            assert_eq!(count, Ok(0));
            let found = users::table.find(n).execute(connection).await;
            assert_eq!(found, Ok(0));
            let same = diesel::select(n.into_sql::<Integer>());
            assert_eq!(same.get_result(connection).await, Ok(n));
        }
    }
}

#[tokio::test]
async fn a_changed_table_is_noticed() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) VALUES ('Ada')")
        .await
        .unwrap();
    let connection = &mut connect(&neon.pooled_url()).await;
    let names = || users::table.select((users::id, users::name));
    for change in ["VARCHAR(99)", "TEXT", "VARCHAR(9)"] {
        for _ in 0..3 {
            let rows = names().load::<(i32, String)>(connection).await;
            assert_eq!(rows.unwrap().len(), 1, "before {change}");
        }
        neon.sql(&format!("ALTER TABLE users ALTER name TYPE {change}"))
            .await
            .unwrap();
        let rows = names().load::<(i32, String)>(connection).await;
        assert_eq!(rows.unwrap().len(), 1, "after {change}");
        // PgBouncer gives the stale plan to a session that has never seen the old table, too.
        let newcomer = &mut connect(&neon.pooled_url()).await;
        for _ in 0..3 {
            let rows = names().load::<(i32, String)>(newcomer).await;
            assert_eq!(rows.unwrap().len(), 1, "new after {change}");
        }
    }
    // Statements have names again.
    names().load::<(i32, String)>(connection).await.unwrap();
    let before = neon.counters();
    names().load::<(i32, String)>(connection).await.unwrap();
    let after = counted(&neon, &neon.pooled_url(), before);
    assert_eq!((after.named_parses, after.flights), (0, 1));

    // The position of an error still points into the caller's SQL.
    neon.sql("ALTER TABLE users RENAME name TO label")
        .await
        .unwrap();
    let by_name = users::table.filter(users::name.eq("Ada")).select(users::id);
    let sql = diesel::debug_query::<diesel::pg::Pg, _>(&by_name).to_string();
    let at = sql.find(r#""users"."name""#).unwrap() + 1;
    let error = by_name.load::<i32>(connection).await.unwrap_err();
    let Error::DatabaseError(_, error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.statement_position(), i32::try_from(at).ok());
}

#[tokio::test]
async fn a_changed_table_costs_the_middle_of_a_transaction_another_try() {
    let neon = start().await;
    let names = || users::table.select((users::id, users::name));
    let old = &mut connect(&neon.pooled_url()).await;
    for _ in 0..3 {
        names().load::<(i32, String)>(old).await.unwrap();
    }
    neon.sql("ALTER TABLE users ALTER name TYPE VARCHAR(99)")
        .await
        .unwrap();
    let pool = pool(&neon.pooled_url(), |policy| policy.max_size(2));
    plus_one(&mut pool.get().await.unwrap(), 1).await.unwrap();
    let attempts = AtomicU32::new(0);
    let done = pool.retry().transaction(async |connection| {
        attempts.fetch_add(1, Ordering::Relaxed);
        plus_one(connection, 1).await?;
        names().load::<(i32, String)>(connection).await?;
        Ok::<_, RetryError>(())
    });
    done.await.unwrap();
    assert_eq!(attempts.into_inner(), 2);
}

#[tokio::test]
async fn failures_between_pipelined_statements_are_theirs_alone() {
    let few = [("default_pool_size", "2"), ("max_prepared_statements", "3")];
    let neon = neon_with(|neon| neon.pgbouncer_settings(few)).await;
    let pool = pool(&neon.pooled_url(), |policy| policy.max_size(6));
    plus_one(&mut pool.get().await.unwrap(), 0).await.unwrap();
    let clients = (0..6).map(async |client| {
        for n in 0..30 {
            let connection = pool.get().await.unwrap();
            let shared = &*connection;
            let (a, failed, b, missing, c) = join5(
                async {
                    let sum = diesel::select(n.into_sql::<Integer>() + client);
                    sum.get_result::<i32>(&mut &*shared).await
                },
                async {
                    let broken = diesel::select(n.into_sql::<Integer>() / 0);
                    broken.get_result::<i32>(&mut &*shared).await
                },
                async {
                    let product = diesel::select(n.into_sql::<Integer>() * client);
                    product.get_result::<i32>(&mut &*shared).await
                },
                async {
                    let missing = users::table.count();
                    missing.get_result::<i64>(&mut &*shared).await
                },
                async {
                    let difference = diesel::select(n.into_sql::<Integer>() - client);
                    difference.get_result::<i32>(&mut &*shared).await
                },
            )
            .await;
            assert_eq!(
                (a, b, c),
                (Ok(n + client), Ok(n * client), Ok(n - client)),
                "{client}, {n}"
            );
            assert_eq!(failed.unwrap_err().sqlstate(), Some("22012"));
            assert_eq!(missing.unwrap_err().sqlstate(), Some("42P01"));
        }
    });
    timeout(HANG, join_all(clients)).await.expect("no hang");
}

#[tokio::test]
async fn a_statement_that_cannot_be_prepared_leaves_nothing_behind() {
    let neon = start().await;
    neon.sql("ALTER TABLE users RENAME TO people")
        .await
        .unwrap();
    let pool = pool(&neon.pooled_url(), |policy| policy.max_size(2));
    let (mut a, mut b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    for n in 0..3 {
        for connection in [&mut a, &mut b] {
            assert_eq!(plus_one(connection, n).await, Ok(n + 1));
            let count = users::table.count().get_result::<i64>(connection).await;
            assert_eq!(count.unwrap_err().sqlstate(), Some("42P01"));
        }
    }
    neon.sql("ALTER TABLE people RENAME TO users")
        .await
        .unwrap();
    for _ in 0..3 {
        for connection in [&mut a, &mut b] {
            let count = users::table.count().get_result::<i64>(connection).await;
            assert_eq!(count, Ok(0));
        }
    }
}

#[tokio::test]
async fn a_pooler_that_stops_tracking_costs_one_more_flight_and_no_failure() {
    let neon = start().await;
    let url = neon.pooled_url();
    let pool = pool(&url, |policy| policy.max_size(2));
    let (mut a, mut b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    for n in 0..3 {
        assert_eq!(plus_one(&mut a, n).await, Ok(n + 1));
        assert_eq!(plus_one(&mut b, n).await, Ok(n + 1));
    }
    neon.pgbouncer_command("SET max_prepared_statements = 0")
        .await
        .unwrap();
    let before = neon.counters();
    for n in 0..3 {
        assert_eq!(plus_one(&mut a, n).await, Ok(n + 1));
        assert_eq!(plus_one(&mut b, n).await, Ok(n + 1));
    }
    let after = counted(&neon, &url, before);
    assert_eq!((after.named_parses, after.flights), (0, 7));
}

#[tokio::test]
async fn a_pooler_that_was_wrongly_said_to_track_is_found_out() {
    let none = [("max_prepared_statements", "0")];
    let neon = neon_with(|neon| neon.pgbouncer_settings(none)).await;
    let pool = pool(&neon.pooled_url(), |policy| {
        policy.max_size(2).named_statements(NamedStatements::Always)
    });
    let mut a = pool.get().await.unwrap();
    for n in 0..3 {
        assert_eq!(plus_one(&mut a, n).await, Ok(n + 1));
    }
    // `a` meets a server that does not know its statement.
    let mut holder = connect(&neon.pgbouncer_url()).await;
    holder.batch_execute("BEGIN").await.unwrap();
    let before = neon.counters();
    for n in 0..3 {
        assert_eq!(plus_one(&mut a, n).await, Ok(n + 1));
    }
    let after = counted(&neon, &neon.pooled_url(), before);
    assert_eq!((after.named_parses, after.flights), (0, 4));
}

#[tokio::test]
async fn deallocating_everything_is_survived() {
    let neon = start().await;
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let pool = pool(&neon.pooled_url(), |policy| policy.max_size(1));
        let mut connection = pool.get().await.unwrap();
        for n in 0..3 {
            assert_eq!(plus_one(&mut connection, n).await, Ok(n + 1));
        }
        connection.batch_execute(all).await.unwrap();
        for n in 0..3 {
            assert_eq!(plus_one(&mut connection, n).await, Ok(n + 1), "{all}");
        }
        sql_query(all).execute(&mut connection).await.unwrap();
        let in_transaction = connection
            .transaction(async |connection| plus_one(connection, 1).await)
            .await;
        assert_eq!(in_transaction, Ok(2), "{all}");
    }
}

#[tokio::test]
async fn a_database_that_is_gone_behind_the_pooler_is_named_at_once() {
    let neon = start().await;
    neon.create_database("shelf").await.unwrap();
    let url = neon.pooled_url().replace("/neondb?", "/shelf?");
    let pool = pool(&url, |policy| policy.validation_bypass(Duration::ZERO));
    drop(pool.get().await.unwrap());
    neon.sql("DROP DATABASE shelf WITH (FORCE)").await.unwrap();
    // The pooler accepts clients all the same.
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    match &error {
        PoolError::Connect(error) => assert_eq!(error.kind(), ConnectErrorKind::Database),
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("shelf"), "{error}");
}
