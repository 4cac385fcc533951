//! Transactions, and what becomes of those that are left open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Text;
use diesel_neon::blocking::PgConnection;
use diesel_neon::{DatabaseErrorExt, RetryError};

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
        }
        add(conn, "once")?;
        Ok::<_, RetryError>(())
    });
    done.unwrap();
    assert_eq!(names(&sim), "once");
}
