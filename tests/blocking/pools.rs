//! The pool's policies, through the methods that block.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_neon::blocking::Pool;
use diesel_neon::{BuildError, DatabaseErrorExt, Endpoint, PoolError, RetryError};
use neon_sim::Suspension;

use super::common::log::Log;
use super::common::{HANG, users};
use super::{pool, start};

#[test]
fn a_suspension_between_two_requests_goes_unnoticed() {
    let sim = start();
    for url in [sim.url(), sim.pooled_url()] {
        for suspension in [Suspension::Normal, Suspension::Reset, Suspension::Silent] {
            let pool = pool(&url, |policy| {
                policy
                    .max_size(2)
                    .validation_bypass(Duration::ZERO)
                    .validation_timeout(Duration::from_millis(500))
            });
            let count = || {
                let conn = &mut pool.get().unwrap();
                users::table.count().get_result::<i64>(conn)
            };
            assert_eq!(count(), Ok(0));
            sim.suspend(suspension);
            assert_eq!(count(), Ok(0), "{suspension:?}");
            pool.close(HANG).unwrap();
        }
    }
}

#[test]
fn callers_are_told_why_there_is_no_connection() {
    let sim = start();
    let wrong = sim.url().replace(sim.password(), "wrong");
    let refused = pool(&wrong, |policy| policy).get().map(drop).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("password authentication failed"),
        "{refused}"
    );
    assert!(matches!(refused, PoolError::Connect(_)));

    let pool = pool(&sim.url(), |policy| {
        policy.max_size(1).validation_bypass(HANG)
    });
    let held = pool.get().unwrap();
    let late = pool.get_timeout(Duration::from_millis(50)).map(drop);
    assert!(matches!(late, Err(PoolError::Exhausted { .. })), "{late:?}");
    assert!(pool.try_get().is_none());
    drop(held);
    assert_eq!(pool.try_get().unwrap().endpoint(), Endpoint::Direct);

    let held = pool.get().unwrap();
    let error = pool.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.status.in_use, 1);
    assert!(pool.is_closed());
    drop(held);
    pool.close(HANG).unwrap();
    assert!(matches!(pool.get().map(drop), Err(PoolError::Closed)));
    assert_eq!(pool.status().size, 0);

    let contradictory = Pool::builder("postgresql://localhost/db").max_size(0);
    let error = contradictory.build_blocking().map(drop).unwrap_err();
    assert!(matches!(error, BuildError::Policy(_)), "{error}");
}

#[test]
fn connections_idle_and_end_without_a_runtime_around_them() {
    let sim = start();
    let filling = pool(&sim.url(), |policy| policy.never_suspends().min_idle(2));
    sim.until(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'",
        "2",
    );
    filling.close(HANG).unwrap();

    let idle = pool(&sim.url(), |policy| {
        policy.idle_timeout(Duration::from_millis(100))
    });
    drop(idle.get().unwrap());
    sim.until(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'",
        "0",
    );
    idle.get().unwrap().batch_execute("SELECT 1").unwrap();

    idle.invalidate_all();
    drop(idle.get().unwrap());
    assert_eq!(idle.status().connects.opened, 3);
}

#[test]
fn a_dedicated_connection_is_the_callers_own() {
    let sim = start();
    let pool = pool(&sim.url(), |policy| policy);
    let mut own = pool.dedicated().unwrap();
    own.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    assert_eq!(pool.status().size, 0);
    pool.close(HANG).unwrap();
    own.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
}

#[test]
fn a_statement_that_hangs_ends_with_the_response_timeout() {
    let sim = start();
    let pool = pool(&sim.url(), |policy| {
        policy.response_timeout(Duration::from_millis(300))
    });
    let ran = pool.get().unwrap().batch_execute("SELECT pg_sleep(600)");
    assert!(ran.unwrap_err().is_response_timeout());
}

#[test]
fn the_log_names_the_line_of_the_caller() {
    let log = Log::of_warnings();
    let sim = start();
    let pool = pool(&sim.url(), |policy| {
        policy.slow_checkout_threshold(Duration::ZERO)
    });
    let first = line!();
    drop(pool.get().unwrap());
    // The next caller waits again.
    pool.invalidate_all();
    drop(pool.get_timeout(HANG).unwrap());
    pool.invalidate_all();
    pool.transaction(|_| Ok::<_, RetryError>(())).unwrap();
    pool.invalidate_all();
    pool.retry().run(|_| Ok::<_, RetryError>(())).unwrap();
    pool.invalidate_all();
    let retry = pool.retry();
    retry.transaction(|_| Ok::<_, RetryError>(())).unwrap();
    let last = line!();
    let log = log.text();
    let lines = log.split("asked_at=tests/blocking/pools.rs:").skip(1);
    let lines = lines.map(|rest| rest.split(':').next().unwrap().parse().unwrap());
    let lines: BTreeSet<u32> = lines.filter(|line| (first..last).contains(line)).collect();
    assert_eq!(lines.len(), 5, "{log}");
}
