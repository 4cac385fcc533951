//! Transactions whose future is dropped: later statements of the connection never run inside of them.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::future::{Future, pending};
use std::time::Duration;

use common::{
    GivenUp, HANG, IN_TRANSACTION, RUNNING, connect, pool, routes, start, undisturbed, until, users,
};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager as _};
use diesel_neon::{
    AbandonedTransaction, Connection, ConnectionManager, DatabaseErrorExt, Policy, Pool,
    PooledConnection, RetryError, TransactionManager,
};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_immediate};
use neon_sim::NeonSim;
use tokio::time::{sleep, timeout};

async fn insert(connection: &mut Connection, name: &str) -> QueryResult<usize> {
    let insert = diesel::insert_into(users::table).values(users::name.eq(name));
    insert.execute(connection).await
}

/// A statement that waits for as long as a [`Barrier`] is held.
const WAIT: &str = "SELECT pg_advisory_xact_lock(7)";

/// Holds up statements that [`WAIT`].
struct Barrier(Connection);

impl Barrier {
    async fn hold(neon: &NeonSim) -> Self {
        let mut connection = connect(&neon.url()).await;
        let lock = connection.batch_execute("SELECT pg_advisory_lock(7)");
        lock.await.unwrap();
        Self(connection)
    }

    async fn release(mut self) {
        let unlock = self.0.batch_execute("SELECT pg_advisory_unlock(7)");
        unlock.await.unwrap();
    }
}

/// Polls `run` until nothing more happens, and drops it there.
async fn give_up<T>(run: impl Future<Output = T>) {
    let given_up = timeout(Duration::from_millis(200), run).await;
    assert!(given_up.is_err(), "it was to be given up");
}

fn is_abandoned<T: std::fmt::Debug>(result: QueryResult<T>) -> bool {
    match result {
        Err(Error::QueryBuilderError(error)) => error.is::<AbandonedTransaction>(),
        _ => false,
    }
}

/// Asserts that every operation on the connection fails, and says why.
async fn refuses(connection: &mut Connection, what: &str) {
    // If only the dropped statement tells of the transaction, it may not have ended in time.
    let lost = |error: &Error| error.is_connection_lost() && what.ends_with("a statement");
    let refused = |result: QueryResult<()>| match result.unwrap_err() {
        Error::QueryBuilderError(error) => {
            assert!(error.is::<AbandonedTransaction>(), "{what}: {error}");
            let error = Error::QueryBuilderError(error);
            assert!(!error.is_transient() && !error.is_connection_lost());
        }
        error => assert!(lost(&error), "{what}: {error:?}"),
    };
    for _ in 0..2 {
        refused(insert(connection, "swallowed").await.map(drop));
        refused(connection.batch_execute("SELECT 1").await);
        if !what.ends_with("a statement") {
            let nested =
                connection.transaction(async |connection| insert(connection, "nested").await);
            refused(nested.await.map(drop));
            let built = connection.build_transaction();
            let built = { built }
                .run(async |connection| insert(connection, "built").await)
                .await;
            refused(built.map(drop));
            refused(
                connection
                    .copy_in("COPY users (name) FROM STDIN")
                    .await
                    .map(drop),
            );
            refused(TransactionManager::begin_transaction(connection).await);
            refused(TransactionManager::commit_transaction(connection).await);
            // Behind this error Diesel's `transaction` returns the caller's own.
            let rolled_back = TransactionManager::rollback_transaction(connection).await;
            assert!(matches!(rolled_back, Err(Error::BrokenTransactionManager)));
        }
    }
}

/// The ways to have a transaction under way; each does something and then never ends.
type Way = for<'c> fn(&'c mut Connection) -> BoxFuture<'c, QueryResult<()>>;

const WAYS: &[(&str, Way)] = &[
    ("transaction", |connection| {
        connection
            .transaction(async |connection| {
                insert(connection, "given up").await?;
                pending().await
            })
            .boxed()
    }),
    ("while a statement runs", |connection| {
        connection
            .transaction(async |connection| {
                insert(connection, "given up").await?;
                connection.batch_execute("SELECT pg_sleep(60)").await
            })
            .boxed()
    }),
    ("nested, and caught by the outer one", |connection| {
        connection
            .transaction(async |connection| {
                insert(connection, "given up").await?;
                let inner = connection.transaction(async |connection| {
                    insert(connection, "given up, too").await?;
                    pending().await
                });
                let inner: Result<QueryResult<()>, _> =
                    timeout(Duration::from_millis(20), inner).await;
                assert!(inner.is_err());
                assert!(is_abandoned(insert(connection, "swallowed").await));
                Ok::<_, Error>(())
            })
            .map(|outer| {
                assert!(is_abandoned(outer), "success would be a lie");
            })
            .then(|()| pending())
            .boxed()
    }),
    ("builder", |connection| {
        async {
            connection
                .build_transaction()
                .serializable()
                .run(async |connection| {
                    insert(connection, "given up").await?;
                    pending().await
                })
                .await
        }
        .boxed()
    }),
    ("test transaction", |connection| {
        async {
            connection
                .test_transaction(async |connection| {
                    insert(connection, "given up").await?;
                    pending::<QueryResult<()>>().await
                })
                .await;
            Ok(())
        }
        .boxed()
    }),
    (
        "in a transaction that outlives its checkout",
        |connection| {
            async {
                connection.begin_test_transaction().await?;
                connection
                    .transaction(async |connection| {
                        insert(connection, "given up").await?;
                        pending().await
                    })
                    .await
            }
            .boxed()
        },
    ),
    ("begun by hand, in a statement", |connection| {
        async {
            TransactionManager::begin_transaction(connection).await?;
            insert(connection, "given up").await?;
            connection.batch_execute(WAIT).await
        }
        .boxed()
    }),
    ("BEGIN as SQL, in a statement", |connection| {
        async {
            connection.batch_execute("BEGIN").await?;
            insert(connection, "given up").await?;
            connection.batch_execute(WAIT).await
        }
        .boxed()
    }),
    ("in COMMIT", |connection| {
        connection
            .transaction(async |connection| {
                let late = "INSERT INTO users (name) VALUES ('slow to commit')";
                connection.batch_execute(late).await
            })
            .boxed()
    }),
];

async fn slow_to_commit(neon: &NeonSim) {
    neon.sql(
        "CREATE FUNCTION linger() RETURNS TRIGGER LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.name = 'slow to commit') EXECUTE FUNCTION linger()",
    )
    .await
    .unwrap();
}

async fn get(pool: &Pool) -> PooledConnection<'_> {
    timeout(HANG, pool.get()).await.expect("no hang").unwrap()
}

#[tokio::test]
async fn a_dropped_transaction_swallows_nothing_and_its_connection_goes() {
    let neon = start().await;
    slow_to_commit(&neon).await;
    for (route, url) in routes(&neon) {
        for (way, run) in WAYS {
            let what = format!("{route}, {way}");
            let pool = pool(&url, |policy| policy.max_size(1));
            let mut connection = get(&pool).await;
            let before = connection.parameter("TimeZone");
            assert!(before.is_some());
            let barrier = Barrier::hold(&neon).await;
            give_up(run(&mut connection)).await;
            barrier.release().await;
            refuses(&mut connection, &what).await;
            drop(connection);
            let mut connection = get(&pool).await;
            assert_eq!(insert(&mut connection, "kept").await, Ok(1), "{what}");
            drop(connection);
            let names = "SELECT string_agg(name, ',') FROM users";
            let names = neon.sql(names).await.unwrap()[0][0].clone().unwrap();
            let committed = names.replace("slow to commit,", "");
            assert_eq!(committed, "kept", "{what}");
            neon.sql("TRUNCATE users").await.unwrap();
            pool.close(HANG).await.unwrap();
        }
        until(&neon, IN_TRANSACTION, "0").await;
        until(&neon, RUNNING, "0").await;
    }
}

#[tokio::test]
async fn an_abandoned_transaction_that_was_not_sent_is_refused_as_well_and_costs_no_connection() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let before = neon.counters();
    let mut connection = get(&pool).await;
    insert(&mut connection, "a").await.unwrap();
    let waiting = connection.transaction(async |connection| {
        connection
            .transaction(async |_| pending::<QueryResult<()>>().await)
            .await
    });
    assert!(poll_immediate(waiting).await.is_none());
    refuses(&mut connection, "unsent").await;
    drop(connection);
    let mut connection = get(&pool).await;
    assert_eq!(insert(&mut connection, "b").await, Ok(1));
    assert_eq!((neon.counters() - before).direct.connections, 1);
}

#[tokio::test]
async fn transactions_of_the_pooled_connection_itself_are_watched_too() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        for test in [false, true] {
            let mut connection = get(&pool).await;
            let work = async |connection: &mut PooledConnection<'_>| {
                insert(connection, "given up").await?;
                pending::<QueryResult<()>>().await
            };
            match test {
                false => give_up(connection.transaction(work)).await,
                true => {
                    let work = async |connection: &mut Connection| {
                        insert(connection, "given up").await?;
                        pending::<QueryResult<()>>().await
                    };
                    give_up(connection.test_transaction(work)).await;
                }
            }
            refuses(&mut connection, &format!("{route}, {test}")).await;
            drop(connection);
            let mut connection = get(&pool).await;
            let name = format!("{route}, {test}");
            let kept = connection
                .transaction(async |connection| insert(connection, &name).await)
                .await;
            assert_eq!(kept, Ok(1));
        }
    }
    let all = neon.sql("SELECT count(*) FROM users").await.unwrap();
    let expected = (2 * routes(&neon).len()).to_string();
    assert_eq!(all[0][0].as_deref(), Some(expected.as_str()));
}

#[tokio::test]
async fn in_a_pool_of_bb8s_the_connections_own_are_watched() {
    let neon = start().await;
    let url = neon.url().parse().unwrap();
    let manager: ConnectionManager = ConnectionManager::new(&url, Policy::default()).unwrap();
    let pool = bb8::Pool::builder().max_size(1).build(manager).await;
    let pool = pool.unwrap();
    let mut pooled = pool.get().await.unwrap();
    let connection: &mut Connection = &mut pooled;
    give_up(connection.transaction(async |connection| {
        insert(connection, "given up").await?;
        pending::<QueryResult<()>>().await
    }))
    .await;
    refuses(connection, "bb8").await;
    drop(pooled);
    let mut pooled = pool.get().await.unwrap();
    assert_eq!(insert(&mut pooled, "kept").await, Ok(1));
    let all = neon.sql("SELECT string_agg(name, ',') FROM users");
    assert_eq!(all.await.unwrap()[0][0].as_deref(), Some("kept"));
}

#[tokio::test]
async fn transactions_of_the_pool_are_watched_too() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    give_up(
        pool.retry()
            .transaction(async |connection: &mut Connection| {
                insert(connection, "given up").await?;
                pending::<Result<(), RetryError>>().await
            }),
    )
    .await;
    let kept = pool
        .retry()
        .transaction(async |connection: &mut Connection| {
            insert(connection, "a").await?;
            // The work handles the error, and goes on.
            let barrier = Barrier::hold(&neon).await;
            give_up(sql_query(WAIT).execute(connection)).await;
            barrier.release().await;
            Ok::<_, RetryError>(insert(connection, "b").await?)
        });
    assert_eq!(kept.await.unwrap(), 1);
    let all = neon.sql("SELECT string_agg(name, ',' ORDER BY name) FROM users");
    assert_eq!(all.await.unwrap()[0][0].as_deref(), Some("a,b"));
}

#[tokio::test]
async fn without_a_pool_an_abandoned_transaction_can_be_rolled_back() {
    let neon = start().await;
    slow_to_commit(&neon).await;
    for (route, url) in [("direct", neon.url()), ("pooled", neon.pooled_url())] {
        for (way, run) in WAYS {
            let what = format!("{route}, {way}");
            let mut connection = connect(&url).await;
            let barrier = Barrier::hold(&neon).await;
            give_up(run(&mut connection)).await;
            barrier.release().await;
            insert(&mut connection, "swallowed").await.unwrap_err();
            let again = timeout(HANG, connection.roll_back_abandoned()).await;
            match again.expect("no hang") {
                Ok(()) => {
                    let kept = connection
                        .transaction(async |connection| insert(connection, "kept").await)
                        .await;
                    assert_eq!(kept, Ok(1), "{what}");
                    assert_eq!(insert(&mut connection, "kept, too").await, Ok(1), "{what}");
                    let kept = neon.sql("SELECT count(*) FROM users WHERE name LIKE 'kept%'");
                    assert_eq!(kept.await.unwrap()[0][0].as_deref(), Some("2"), "{what}");
                }
                // A dropped statement did not end at once.
                Err(error) => assert!(
                    error.is_connection_lost()
                        && (way.contains("statement") || *way == "in COMMIT"),
                    "{what}: {error}"
                ),
            }
            neon.sql("TRUNCATE users").await.unwrap();
        }
    }
}

#[tokio::test]
async fn to_roll_back_waits_for_the_statement_that_was_dropped_and_tells_of_its_end() {
    let neon = start().await;
    let abandon = async |seconds: f64, given_up: &GivenUp| {
        let mut connection = connect(&neon.url()).await;
        connection.batch_execute("BEGIN").await.unwrap();
        insert(&mut connection, "given up").await.unwrap();
        let slow = sql_query(format!("SELECT pg_sleep({seconds})"));
        given_up.note();
        timeout(Duration::from_millis(1), slow.execute(&mut connection))
            .await
            .unwrap_err();
        connection
    };
    undisturbed(async |given_up| {
        let mut connection = abandon(0.05, given_up).await;
        for _ in 0..2 {
            let rolled_back = timeout(HANG, connection.roll_back_abandoned()).await;
            match rolled_back.expect("no hang") {
                Err(error) if error.is_connection_lost() => return false,
                rolled_back => assert_eq!(rolled_back, Ok(())),
            }
        }
        assert_eq!(insert(&mut connection, "kept").await, Ok(1));
        true
    })
    .await;
    let mut connection = abandon(60.0, &GivenUp::default()).await;
    for _ in 0..2 {
        let rolled_back = timeout(HANG, connection.roll_back_abandoned()).await;
        let error = rolled_back.expect("no hang").unwrap_err();
        assert!(error.is_connection_lost(), "{error}");
    }
    let all = neon.sql("SELECT string_agg(name, ',') FROM users");
    assert_eq!(all.await.unwrap()[0][0].as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_rollback_that_is_given_up_leaves_a_connection_that_can_be_used_again() {
    let neon = start().await;
    for round in 0..20 {
        undisturbed(async |given_up| {
            let mut connection = connect(&neon.url()).await;
            neon.set_latency(Duration::from_millis(5));
            let mut rolled_back = Box::pin(connection.transaction(async |connection| {
                insert(connection, "rolled back").await?;
                Err::<(), _>(Error::RollbackTransaction)
            }));
            for _ in 0..round {
                if poll_immediate(&mut rolled_back).await.is_some() {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
            given_up.note();
            drop(rolled_back);
            neon.set_latency(Duration::ZERO);
            let again = timeout(HANG, connection.roll_back_abandoned()).await;
            match again.expect("no hang") {
                Err(error) if error.is_connection_lost() => return false,
                again => assert_eq!(again, Ok(())),
            }
            let name = round.to_string();
            assert_eq!(insert(&mut connection, &name).await, Ok(1));
            true
        })
        .await;
    }
    let all = neon.sql("SELECT count(*) FROM users").await.unwrap();
    assert_eq!(all[0][0].as_deref(), Some("20"));
}

#[tokio::test]
async fn a_transaction_begun_by_hand_goes_on() {
    let neon = start().await;
    undisturbed(async |given_up| {
        let mut connection = connect(&neon.url()).await;
        TransactionManager::begin_transaction(&mut connection)
            .await
            .unwrap();
        insert(&mut connection, "a").await.unwrap();
        // The row had arrived: an unread rest of its response is not an abandoned statement.
        let row: i32 = users::table
            .select(users::id)
            .get_result(&mut connection)
            .await
            .unwrap();
        assert!(row > 0);
        let nested = connection.transaction(async |connection| {
            // The caller goes on, so that the caller knows of the dropped statement.
            let barrier = Barrier::hold(&neon).await;
            give_up(sql_query(WAIT).execute(connection)).await;
            given_up.note();
            barrier.release().await;
            insert(connection, "b").await
        });
        match nested.await {
            Err(error) if error.is_connection_lost() => return false,
            nested => assert_eq!(nested, Ok(1)),
        }
        TransactionManager::commit_transaction(&mut connection)
            .await
            .unwrap();
        let all = neon.sql("SELECT count(*) FROM users").await.unwrap();
        assert_eq!(all[0][0].as_deref(), Some("2"));
        connection.roll_back_abandoned().await.unwrap();
        assert_eq!(insert(&mut connection, "c").await, Ok(1));
        true
    })
    .await;
}

#[tokio::test]
async fn a_savepoint_outlasts_sql_that_was_given_up_before_it_was_sent() {
    let neon = start().await;
    undisturbed(async |given_up| {
        let mut connection = connect(&neon.url()).await;
        let committed = connection
            .transaction(async |connection| {
                insert(connection, "a").await?;
                let barrier = Barrier::hold(&neon).await;
                give_up(sql_query(WAIT).execute(connection)).await;
                given_up.note();
                let nested = connection.transaction(async |connection| {
                    // The statement waits for the one before it.
                    let unsent = connection.batch_execute("SELECT 1");
                    assert!(poll_immediate(unsent).await.is_none());
                    barrier.release().await;
                    insert(connection, "b").await?;
                    Err::<(), _>(Error::RollbackTransaction)
                });
                match nested.await {
                    Err(Error::RollbackTransaction) => insert(connection, "c").await,
                    other => other.map(|()| 0),
                }
            })
            .await;
        match committed {
            Err(error) if error.is_connection_lost() => return false,
            committed => assert_eq!(committed, Ok(1)),
        }
        true
    })
    .await;
    let all = neon.sql("SELECT string_agg(name, ',' ORDER BY name) FROM users");
    assert_eq!(all.await.unwrap()[0][0].as_deref(), Some("a,c"));
}
