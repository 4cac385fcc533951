//! Transactions, and what becomes of those that are left open.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use diesel_neon::blocking::{PgConnection, Pool, block_on};
use diesel_neon::{AbandonedTransaction, DatabaseErrorExt, RetryError};
use futures_util::FutureExt;

use super::common::{IN_TRANSACTION, routes, users};
use super::{Sim, pool, start};

fn add(conn: &mut PgConnection, name: &str) -> QueryResult<usize> {
    let user = users::name.eq(name);
    diesel::insert_into(users::table).values(user).execute(conn)
}

fn names(sim: &Sim) -> String {
    let names = "SELECT coalesce(string_agg(name, ' ' ORDER BY id), '') FROM users";
    sim.sql(names).unwrap()
}

const DIE: &str = "SELECT pg_terminate_backend(pg_backend_pid())";

#[test]
fn nested_transactions_commit_and_roll_back() {
    let sim = start();
    for (route, url) in routes(&sim) {
        sim.sql("TRUNCATE users");
        let conn = &mut PgConnection::establish(&url).unwrap();
        let done = conn.transaction(|conn| {
            add(conn, "a")?;
            let inner = conn.transaction(|conn| {
                add(conn, "b")?;
                add(conn, "a")
            });
            let inner = inner.unwrap_err();
            assert!(matches!(
                inner,
                Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
            ));
            conn.transaction(|conn| add(conn, "c"))
        });
        assert_eq!(done, Ok(1), "{route}");
        let back = conn.transaction(|conn| {
            add(conn, "d")?;
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(back, Err(Error::RollbackTransaction), "{route}");
        assert_eq!(names(&sim), "a c", "{route}");
    }
}

#[test]
fn the_modes_of_a_transaction_are_set() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    let show = |conn: &mut PgConnection, setting: &str| {
        let show = diesel::dsl::sql::<Text>(&format!("SHOW {setting}"));
        show.get_result::<String>(conn)
    };
    let read_only = conn
        .build_transaction()
        .serializable()
        .read_only()
        .deferrable()
        .run(|conn| {
            assert_eq!(show(conn, "transaction_isolation")?, "serializable");
            assert_eq!(show(conn, "transaction_deferrable")?, "on");
            let nested = conn.build_transaction().run(|_| QueryResult::Ok(()));
            assert_eq!(nested, Err(Error::AlreadyInTransaction));
            add(conn, "a")
        });
    assert_eq!(read_only.unwrap_err().sqlstate(), Some("25006"));
    assert_eq!(
        show(conn, "transaction_isolation").unwrap(),
        "read committed"
    );
    let done = conn
        .build_transaction()
        .repeatable_read()
        .run(|conn| add(conn, "b"));
    assert_eq!((done, &*names(&sim)), (Ok(1), "b"));
}

#[test]
fn a_test_transaction_leaves_nothing() {
    let sim = start();
    let pool = pool(&sim.url(), |policy| policy.max_size(1));
    let conn = &mut pool.get().unwrap();
    let added = conn.test_transaction(|conn| add(conn, "a"));
    assert_eq!(added, 1);

    conn.begin_test_transaction().unwrap();
    conn.transaction(|conn| add(conn, "b")).unwrap();
    assert_eq!(users::table.count().get_result(conn), Ok(1_i64));
    assert_eq!(names(&sim), "");
}

#[test]
fn a_test_transaction_that_fails_panics_and_leaves_nothing() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    let failed = catch_unwind(AssertUnwindSafe(|| {
        conn.test_transaction(|conn| {
            add(conn, "a")?;
            add(conn, "a")
        })
    }));
    assert!(failed.is_err());
    assert_eq!(conn.test_transaction(|conn| add(conn, "a")), 1);
    assert_eq!(names(&sim), "");
}

#[test]
fn all_checkouts_may_share_a_test_transaction() {
    let sim = start();
    let pool = Pool::builder(&*sim.url())
        .max_size(1)
        .after_connect(|conn, _| Box::pin(conn.begin_test_transaction()))
        .build_blocking()
        .unwrap();
    for (name, count) in [("a", 1), ("b", 2_i64)] {
        let added = pool.transaction(|conn| Ok::<_, RetryError>(add(conn, name)?));
        assert_eq!(added.unwrap(), 1);
        let conn = &mut pool.get().unwrap();
        assert_eq!(users::table.count().get_result(conn), Ok(count));
    }
    assert_eq!(names(&sim), "");
}

#[test]
fn what_is_left_open_does_not_outlive_its_checkout() {
    let sim = start();
    for url in [sim.url(), sim.pooled_url()] {
        let pool = pool(&url, |policy| policy.max_size(1));
        let begin = |conn: &mut PgConnection| {
            <PgConnection as Connection>::TransactionManager::begin_transaction(conn)?;
            add(conn, "left")
        };
        begin(&mut pool.get().unwrap()).unwrap();
        sim.until(IN_TRANSACTION, "0");
        pool.get()
            .unwrap()
            .batch_execute("BEGIN; INSERT INTO users (name) VALUES ('left')")
            .unwrap();
        sim.until(IN_TRANSACTION, "0");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let work = |conn: &mut PgConnection| {
                add(conn, "left").unwrap();
                panic!("on purpose");
            };
            pool.transaction::<(), RetryError, _>(work)
        }));
        assert!(panicked.is_err());
        sim.until(IN_TRANSACTION, "0");

        let conn = &mut pool.get().unwrap();
        assert_eq!(users::table.count().get_result(conn), Ok(0_i64));
        assert_eq!(pool.status().size, 1);
    }
}

#[test]
fn a_retry_repeats_what_has_left_nothing_behind() {
    let sim = start();
    for (i, url) in [sim.url(), sim.pooled_url()].iter().enumerate() {
        let pool = pool(url, |policy| policy);
        let attempts = AtomicU32::new(0);
        let raise = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
        for (name, failure) in [("serialization", raise), ("lost", DIE)] {
            attempts.store(0, Ordering::Relaxed);
            let done = pool.retry().transaction(|conn| {
                add(conn, &format!("{name}{i}"))?;
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                    conn.batch_execute(failure)?;
                }
                Ok::<_, RetryError>(7)
            });
            assert_eq!(done.unwrap(), 7, "{name}");
            assert_eq!(attempts.load(Ordering::Relaxed), 2, "{name}");
        }
        // What commits by itself is not done again, unless that is harmless.
        for idempotent in [false, true] {
            attempts.store(0, Ordering::Relaxed);
            let work = |conn: &mut PgConnection| {
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                    conn.batch_execute("SELECT 1")?;
                    conn.batch_execute(DIE)?;
                }
                Ok::<_, RetryError>(())
            };
            let retry = match idempotent {
                true => pool.retry().idempotent(),
                false => pool.retry(),
            };
            assert_eq!(retry.run(work).is_ok(), idempotent);
            assert_eq!(attempts.load(Ordering::Relaxed), 1 + u32::from(idempotent));
        }
        // Nor is a transaction that the work has ended by itself.
        attempts.store(0, Ordering::Relaxed);
        let ended = pool.retry().transaction(|conn| {
            add(conn, &format!("ended{i}"))?;
            attempts.fetch_add(1, Ordering::Relaxed);
            conn.batch_execute("COMMIT")?;
            conn.batch_execute(DIE)?;
            Ok::<_, RetryError>(())
        });
        assert!(ended.is_err());
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
    }
    assert_eq!(
        names(&sim),
        "serialization0 lost0 ended0 serialization1 lost1 ended1"
    );
}

#[test]
fn a_connection_that_died_unseen_is_replaced_before_anything_is_sent() {
    let sim = start();
    // Handed out unchecked, so that the first statement finds out.
    let pool = pool(&sim.url(), |policy| {
        policy
            .max_size(1)
            .validation_bypass(Duration::from_secs(60))
    });
    drop(pool.get().unwrap());
    let done = pool.retry().run(|conn| {
        if pool.status().connects.opened == 1 {
            sim.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'neondb_owner'");
            sim.until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'", "0");
            // The end is on its way here; a statement that crosses it may have run, for all that is known.
            std::thread::sleep(Duration::from_secs(1));
        }
        add(conn, "once")?;
        Ok::<_, RetryError>(())
    });
    done.unwrap();
    assert_eq!(names(&sim), "once");
}

#[test]
fn what_follows_a_transaction_that_panicked_does_not_run_inside_it() {
    type Transact = fn(&mut PgConnection);
    fn panics(conn: &mut PgConnection) -> QueryResult<()> {
        add(conn, "left")?;
        panic!("on purpose");
    }
    let ways: [(&str, Transact); 6] = [
        ("transaction", |conn| {
            let _ = conn.transaction(panics);
        }),
        ("nested", |conn| {
            let _ = conn.transaction(|conn| conn.transaction(panics));
        }),
        ("build_transaction", |conn| {
            let _ = conn.build_transaction().serializable().run(panics);
        }),
        ("exclusive", |conn| {
            let _ = conn
                .build_transaction()
                .read_write()
                .run(|conn| conn.transaction(panics));
        }),
        ("test_transaction", |conn| conn.test_transaction(panics)),
        ("before a statement", |conn| {
            let nothing = |_: &mut PgConnection| -> QueryResult<()> { panic!("on purpose") };
            let _ = conn.transaction(nothing);
        }),
    ];
    let sim = start();
    let pool = pool(&sim.url(), |policy| policy.max_size(1));
    for (way, transact) in ways {
        let conn = &mut pool.get().unwrap();
        let unwound = catch_unwind(AssertUnwindSafe(|| transact(conn)));
        assert!(unwound.is_err(), "{way}");
        let refused = add(conn, "swallowed").unwrap_err();
        let Error::QueryBuilderError(refused) = refused else {
            panic!("{way}: {refused:?}");
        };
        assert!(refused.is::<AbandonedTransaction>(), "{way}: {refused}");
        assert!(conn.transaction(|conn| add(conn, "swallowed")).is_err());
    }
    // One that is caught within another ends both: nobody knows what has become of its savepoint.
    let caught = pool.transaction(|conn| {
        let unwound = catch_unwind(AssertUnwindSafe(|| conn.transaction(panics)));
        assert!(unwound.is_err());
        Ok::<_, RetryError>(add(conn, "swallowed")?)
    });
    assert!(caught.is_err());
    assert_eq!(names(&sim), "");
    assert_eq!(add(&mut pool.get().unwrap(), "kept"), Ok(1));
}

#[test]
fn the_work_of_a_transaction_may_abandon_a_statement_and_go_on() {
    type Work<'a> = &'a dyn Fn(&mut PgConnection) -> QueryResult<usize>;
    type Transact = fn(&Pool, Work<'_>) -> Result<usize, RetryError>;
    let ways: [Transact; 4] = [
        |pool, work| pool.transaction(|conn| Ok(work(conn)?)),
        |pool, work| Ok(pool.get()?.transaction(|conn| work(conn))?),
        |pool, work| Ok(pool.get()?.build_transaction().run(|conn| work(conn))?),
        |pool, work| pool.retry().transaction(|conn| Ok(work(conn)?)),
    ];
    let sim = start();
    let pool = pool(&sim.url(), |policy| policy.max_size(1));
    for (way, transact) in ways.iter().enumerate() {
        let dropped_at = Cell::new(Instant::now());
        let work = |conn: &mut PgConnection| {
            add(conn, &format!("a{way}"))?;
            let slow =
                SimpleAsyncConnection::batch_execute(conn.as_async(), "SELECT pg_sleep(0.01)");
            // Sent, and then dropped.
            dropped_at.set(Instant::now());
            let _ = block_on(async { slow.now_or_never() }).unwrap();
            add(conn, &format!("b{way}"))
        };
        // An abandoned statement costs the session if it has no answer after 100 ms, as on a busy machine. Then the
        // transaction has left nothing. Before that, nothing may close the session.
        let is_given_up = |done: &Result<usize, RetryError>| {
            let is_lost =
                matches!(done, Err(RetryError::Query(error)) if error.is_connection_lost());
            let since = dropped_at.get().elapsed();
            assert!(!is_lost || since >= Duration::from_millis(100), "{since:?}");
            is_lost
        };
        let mut attempts = (0..30).map(|_| transact(&pool, &work));
        let done = attempts.find(|done| !is_given_up(done));
        assert_eq!(done.unwrap().unwrap(), 1, "{way}");
    }
    assert_eq!(names(&sim), "a0 b0 a1 b1 a2 b2 a3 b3");
}
