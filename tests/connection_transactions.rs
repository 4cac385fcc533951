//! Transactions: the statements that run in them, and their ends.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use common::{HANG, connect, counted, routes, start, undisturbed, users};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager as _};
use diesel_neon::{Connection, DatabaseErrorExt, TransactionManager};
use futures_util::future::{join, poll_immediate};
use tokio::time::timeout;

async fn insert(connection: &mut Connection, name: &str) -> QueryResult<usize> {
    let insert = diesel::insert_into(users::table).values(users::name.eq(name));
    insert.execute(connection).await
}

async fn names(connection: &mut Connection) -> Vec<String> {
    let names = users::table.select(users::name).order(users::id);
    names.load(connection).await.unwrap()
}

#[tokio::test]
async fn transactions_commit_roll_back_and_nest() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        neon.sql("TRUNCATE users").await.unwrap();
        let connection = &mut connect(&url).await;
        let nested = connection
            .transaction(async |connection| {
                insert(connection, "outer").await?;
                let inner = connection
                    .transaction(async |connection| {
                        insert(connection, "inner").await?;
                        Err::<(), _>(Error::RollbackTransaction)
                    })
                    .await;
                assert_eq!(inner, Err(Error::RollbackTransaction));
                // The failure of a statement is undone with its savepoint.
                let inner = connection
                    .transaction(async |connection| insert(connection, "outer").await)
                    .await;
                assert_eq!(inner.unwrap_err().sqlstate(), Some("23505"));
                connection
                    .transaction(async |connection| insert(connection, "kept").await)
                    .await
            })
            .await;
        assert_eq!(nested, Ok(1), "{route}");
        let rolled_back = connection
            .transaction(async |connection| {
                insert(connection, "gone").await?;
                Err::<(), _>(Error::RollbackTransaction)
            })
            .await;
        assert_eq!(rolled_back, Err(Error::RollbackTransaction), "{route}");
        assert_eq!(names(connection).await, ["outer", "kept"], "{route}");
    }
}

#[tokio::test]
async fn begin_and_savepoint_ride_and_empty_ones_send_nothing() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut connect(&url).await;
        names(connection).await;
        let before = neon.counters();
        connection
            .transaction(async |connection| {
                connection.transaction(async |_| Ok::<_, Error>(())).await?;
                let ignored = connection
                    .transaction(async |_| Err::<(), _>(Error::NotFound))
                    .await;
                assert_eq!(ignored, Err(Error::NotFound));
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
        assert_eq!(counted(&neon, &url, before).flights, 0);

        let before = neon.counters();
        let name = &url[..];
        connection
            .transaction(async |connection| {
                connection
                    .transaction(async |connection| insert(connection, name).await)
                    .await
            })
            .await
            .unwrap();
        // Three flights: BEGIN, SAVEPOINT and INSERT; RELEASE; COMMIT.
        assert_eq!(counted(&neon, &url, before).flights, 3);
    }
}

#[tokio::test]
async fn behind_a_failed_begin_nothing_runs() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        neon.sql("TRUNCATE users").await.unwrap();
        let connection = &mut connect(&url).await;
        for batch in [false, true] {
            // A transaction that Diesel does not know of has failed, so that BEGIN is refused.
            connection.batch_execute("BEGIN").await.unwrap();
            sql_query("SELECT nonsense")
                .execute(connection)
                .await
                .unwrap_err();
            let refused: Result<(), Error> = connection
                .transaction(async |connection| {
                    let first = match batch {
                        true => {
                            connection
                                .batch_execute("INSERT INTO users (name) VALUES ('b')")
                                .await
                        }
                        false => insert(connection, "a").await.map(drop),
                    };
                    assert_eq!(first.unwrap_err().sqlstate(), Some("25P02"), "{route}");
                    for _ in 0..2 {
                        let next = insert(connection, "c").await.unwrap_err();
                        assert_eq!(next.sqlstate(), Some("25P02"), "{route}");
                    }
                    let nested = connection
                        .transaction(async |connection| insert(connection, "d").await)
                        .await;
                    assert_eq!(nested.unwrap_err().sqlstate(), Some("25P02"), "{route}");
                    let both = (&*connection, &*connection);
                    let query = || diesel::select(1.into_sql::<Integer>());
                    let (a, b) = join(
                        query().execute(&mut &*both.0),
                        query().execute(&mut &*both.1),
                    )
                    .await;
                    assert!(a.is_err() && b.is_err(), "{route}");
                    Ok(())
                })
                .await;
            // The INSERT did not run, so that success would be wrong.
            let refused = refused.unwrap_err();
            assert_eq!(refused.sqlstate(), Some("25P02"), "{route}");
            assert!(refused.to_string().contains("could not begin"), "{refused}");
            connection.batch_execute("ROLLBACK").await.unwrap();
            assert_eq!(names(connection).await, [""; 0], "{route}");
        }
    }
}

#[tokio::test]
async fn errors_point_into_the_callers_own_sql() {
    let neon = start().await;
    let position = |done: QueryResult<()>| match done {
        Err(Error::DatabaseError(_, information)) => information.statement_position(),
        other => panic!("{other:?}"),
    };
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        for depth in 0..3 {
            for (sql, at) in [
                ("SELECT 'ä'; SELECT näme", 20),
                ("COPY (SELECT näme) TO STDOUT", 14),
            ] {
                for _ in 0..depth {
                    let begun = TransactionManager::begin_transaction(connection);
                    begun.await.unwrap();
                }
                let done = match sql.starts_with("COPY") {
                    true => connection.copy_out(sql).await.map(drop),
                    false => connection.batch_execute(sql).await,
                };
                assert_eq!(position(done), Some(at), "{route}, {depth}: {sql}");
                for _ in 0..depth {
                    let ended = TransactionManager::rollback_transaction(connection);
                    ended.await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn pipelined_statements_wait_for_the_begin_in_front_of_the_first() {
    let neon = start().await;
    let connection = &mut connect(&neon.url()).await;
    for _ in 0..10 {
        let sum = connection
            .transaction(async |connection| {
                let shared = &*connection;
                let number = |n: i32| diesel::select(n.into_sql::<Integer>());
                let (one, two) = (number(1), number(2));
                let (a, b) = join(
                    one.get_result::<i32>(&mut &*shared),
                    two.get_result::<i32>(&mut &*shared),
                )
                .await;
                Ok::<_, Error>(a? + b?)
            })
            .await;
        assert_eq!(sum, Ok(3));
    }
}

#[tokio::test]
async fn the_transaction_builder_sends_what_it_is_told() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let setting = async |connection: &mut Connection, name: &str| {
            let setting = diesel::select(diesel::dsl::sql::<Text>(&format!(
                "current_setting('{name}')"
            )));
            setting.get_result::<String>(connection).await
        };
        let isolation = connection
            .build_transaction()
            .serializable()
            .read_only()
            .deferrable()
            .run(async |connection| {
                let error = insert(connection, "a").await.unwrap_err();
                assert!(matches!(
                    error,
                    Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)
                ));
                Err::<(), Error>(error)
            })
            .await;
        assert_eq!(isolation.unwrap_err().sqlstate(), Some("25006"), "{route}");
        for (level, expected) in [
            (0, "read committed"),
            (1, "repeatable read"),
            (2, "serializable"),
        ] {
            let builder = connection.build_transaction();
            let mut builder = match level {
                0 => builder.read_committed(),
                1 => builder.repeatable_read(),
                _ => builder.serializable(),
            }
            .read_write()
            .not_deferrable();
            let got = builder
                .run(async |connection| setting(connection, "transaction_isolation").await)
                .await;
            assert_eq!(got.as_deref(), Ok(expected), "{route}");
        }
        let nested = connection
            .transaction(async |connection| {
                connection
                    .build_transaction()
                    .run(async |_| Ok::<_, Error>(()))
                    .await
            })
            .await;
        assert_eq!(nested, Err(Error::AlreadyInTransaction), "{route}");
    }
}

#[tokio::test]
async fn builders_futures_can_be_spawned() {
    let neon = start().await;
    let mut connection = connect(&neon.url()).await;
    let task = tokio::spawn(async move {
        connection
            .build_transaction()
            .read_only()
            .run(async |connection| {
                diesel::select(1.into_sql::<Integer>())
                    .get_result::<i32>(connection)
                    .await
            })
            .await
    });
    assert_eq!(timeout(HANG, task).await.unwrap().unwrap(), Ok(1));
}

#[tokio::test]
async fn a_transaction_on_a_lost_connection_is_not_committed() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let end = "SELECT pg_terminate_backend(pg_backend_pid())";
        let lost = connection.batch_execute(end).await.unwrap_err();
        assert!(lost.is_connection_lost(), "{route}: {lost:?}");
        let swallowed = connection.transaction(async |connection| {
            let insert = insert(connection, "Ada").await;
            assert!(insert.is_err(), "{route}");
            Ok::<_, Error>(())
        });
        let lost = swallowed.await.unwrap_err();
        assert!(lost.is_connection_lost(), "{route}: {lost:?}");
    }
}

#[tokio::test]
async fn a_commit_that_rolls_back_is_an_error() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let swallowed = connection
            .transaction(async |connection| {
                insert(connection, "a").await?;
                let _ = sql_query("SELECT 1 / 0").execute(connection).await;
                Ok::<_, Error>(())
            })
            .await;
        assert_eq!(swallowed.unwrap_err().sqlstate(), Some("25P02"), "{route}");
        assert_eq!(names(connection).await, [""; 0], "{route}");
    }
}

#[tokio::test]
async fn serialization_failures_are_told_wherever_they_come() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) SELECT n::text FROM generate_series(1, 3) AS n")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        let (a, b) = (
            &mut connect(&url).await,
            &mut connect(&neon.postgres_url()).await,
        );
        // The failure comes in a statement.
        let error = a
            .build_transaction()
            .repeatable_read()
            .run(async |a| {
                names(a).await;
                let touch = |name: &'static str| {
                    diesel::update(users::table.filter(users::id.eq(1))).set(users::name.eq(name))
                };
                touch("x").execute(b).await?;
                touch("y").execute(a).await
            })
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)
            ),
            "{route}: {error:?}"
        );
        // The failure comes among the rows of a statement.
        let error = a
            .build_transaction()
            .repeatable_read()
            .run(async |a| {
                names(a).await;
                let touch = |name: &'static str| {
                    diesel::update(users::table.filter(users::id.eq(3))).set(users::name.eq(name))
                };
                touch("z").execute(b).await?;
                let lock = users::table
                    .select(users::name)
                    .order(users::id)
                    .for_update();
                lock.load::<String>(a).await
            })
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)
            ),
            "{route}: {error:?}"
        );
        // The failure comes at COMMIT.
        let error = a
            .build_transaction()
            .serializable()
            .run(async |a| {
                names(a).await;
                insert(a, "from a").await?;
                b.build_transaction()
                    .serializable()
                    .run(async |b| {
                        names(b).await;
                        insert(b, "from b").await
                    })
                    .await
            })
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)
            ),
            "{route}: {error:?}"
        );
        assert_eq!(names(a).await.len(), 4, "{route}");
        neon.sql("UPDATE users SET name = id::text WHERE name NOT LIKE 'from%'")
            .await
            .unwrap();
        neon.sql("DELETE FROM users WHERE name LIKE 'from%'")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn test_transactions_outlive_their_checkout() {
    let neon = start().await;
    let pool = common::pool(&neon.url(), |policy| policy.max_size(1));
    let mut connection = pool.get().await.unwrap();
    connection.begin_test_transaction().await.unwrap();
    insert(&mut connection, "a").await.unwrap();
    drop(connection);
    let mut connection = pool.get().await.unwrap();
    assert_eq!(names(&mut connection).await, ["a"]);
    assert_eq!(
        neon.sql("SELECT count(*) FROM users").await.unwrap()[0][0].as_deref(),
        Some("0")
    );
}

#[tokio::test]
async fn a_savepoint_stays_due_where_the_statement_it_was_to_go_with_is_given_up() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        undisturbed(async |given_up| {
            neon.sql("TRUNCATE users").await.unwrap();
            let mut connection = connect(&url).await;
            let kept = connection.transaction(async |connection| {
                insert(connection, "outer").await?;
                let mut slow = Box::pin(connection.batch_execute("SELECT pg_sleep(0.02)"));
                assert!(poll_immediate(&mut slow).await.is_none());
                given_up.note();
                drop(slow);
                let undone = connection.transaction(async |connection| {
                    // The statement waits behind the slow one, and is not sent.
                    let mut next = Box::pin(connection.batch_execute("SELECT 1"));
                    assert!(poll_immediate(&mut next).await.is_none());
                    drop(next);
                    insert(connection, "inner").await?;
                    Err::<(), _>(Error::RollbackTransaction)
                });
                match undone.await {
                    Err(Error::RollbackTransaction) => Ok(()),
                    other => other,
                }
            });
            match timeout(HANG, kept).await.expect("no hang") {
                Err(error) if error.is_connection_lost() => return false,
                kept => assert_eq!(kept, Ok(()), "{route}"),
            }
            assert_eq!(names(&mut connection).await, ["outer"], "{route}");
            true
        })
        .await;
    }
}
