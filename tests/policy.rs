//! What each setting of the policy does to a pool, and that none is without a test.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use diesel_neon::{Connection, EvictReason, PoolError, RetryError};
use neon_sim::Suspension;
use tokio::time::{sleep, timeout};

use common::{HANG, neon, pool};

#[tokio::test]
async fn min_idle_connections_are_kept_up_if_the_compute_never_suspends() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| {
        let (idle, lifetime) = (Duration::from_millis(100), Duration::from_millis(400));
        let short = policy.idle_timeout(idle).max_lifetime(lifetime);
        short.never_suspends().min_idle(3)
    });
    // The first ones are made after the first checkout.
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    let replaced = async {
        while pool.status().connects.opened < 9 || pool.status().idle != 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, replaced)
        .await
        .unwrap_or_else(|_| panic!("{}", pool.status()));
    pool.close(HANG).await.unwrap();
}

#[tokio::test]
async fn retry_budget_ends_the_attempts() {
    let neon = neon().await;
    let attempts_within = async |budget| {
        let pool = pool(&neon.url(), |policy| {
            policy.retry_attempts(10_000).retry_budget(budget)
        });
        // The budget is not for the login.
        drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let fail = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
            Ok::<_, RetryError>(connection.batch_execute(fail).await?)
        };
        let failed = timeout(HANG, pool.retry().transaction(work)).await;
        failed.expect("the attempts come to an end").unwrap_err();
        attempts.into_inner()
    };
    assert_eq!(attempts_within(Duration::ZERO).await, 1);
    assert!(attempts_within(Duration::from_secs(5)).await > 1);
}

#[tokio::test]
async fn validation_timeout_bounds_the_check_of_a_silent_connection() {
    let neon = neon().await;
    let bound = Duration::from_millis(400);
    let pool = pool(&neon.url(), |policy| {
        policy
            .never_suspends()
            .max_size(1)
            .validation_bypass(Duration::ZERO)
            .validation_timeout(bound)
            .checkout_timeout(Duration::from_secs(6))
    });
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    neon.suspend(Suspension::Silent).await;
    // Nothing replaces it.
    neon.hang_connections(1000);
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    assert!(matches!(error, PoolError::Connecting { .. }), "{error}");
    let status = pool.status();
    assert_eq!(status.closed.failed_check, 1);
    assert_eq!(status.check_failure, Some(EvictReason::NoAnswer { bound }));
}

/// The settings are what a `PolicyBuilder` can be told.
#[test]
fn every_setting_has_a_test_that_is_named_after_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let policy = read(&root.join("src/policy"));
    let settings: BTreeSet<&str> = policy
        .split("pub fn ")
        .filter(|function| function.contains("(mut self"))
        .filter(|function| function.find("(mut self") == function.find('('))
        .map(|function| function.split('(').next().unwrap())
        .collect();
    assert!(settings.len() >= 17, "{settings:?}");
    for known in ["retry_budget", "never_suspends", "named_statements"] {
        assert!(settings.contains(known), "{settings:?}");
    }
    let tests = read(&root.join("tests"));
    let tests: Vec<&str> = tests
        .split("#[test]")
        .flat_map(|text| text.split("#[tokio::test"))
        .filter_map(|test| test.split("fn ").nth(1)?.split('(').next())
        .collect();
    let untested: Vec<_> = settings
        .iter()
        .filter(|setting| !tests.iter().any(|test| test.contains(*setting)))
        .collect();
    assert!(
        untested.is_empty(),
        "no test has the name of these in its own: {untested:?}"
    );
}

/// Returns the sources in a folder and the folders below.
fn read(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&read(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}
