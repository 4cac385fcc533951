//! Each connection of a pool lives or dies by its own answer, and nobody is forgotten.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use diesel_neon::{Closed, PolicyBuilder, Pool, PoolError, Status};
use futures_util::FutureExt;
use futures_util::future::join_all;
use neon_sim::{NeonSim, Suspension};
use tokio::time::{sleep, timeout};

use common::{HANG, backend, neon, pool, start};

/// Has every connection checked, and waits long for the answer.
fn patient(policy: PolicyBuilder) -> PolicyBuilder {
    let policy = policy.validation_bypass(Duration::ZERO);
    policy.validation_timeout(Duration::from_secs(30))
}

/// Opens `n` connections, gives them all back, and returns their server processes.
async fn fill(pool: &Pool, n: usize) -> BTreeSet<i32> {
    let (mut held, mut backends) = (Vec::new(), BTreeSet::new());
    for _ in 0..n {
        let mut connection = pool.get().await.unwrap();
        backends.insert(backend(&mut connection).await);
        held.push(connection);
    }
    backends
}

/// Returns the server processes of all sessions that an app has.
async fn alive(neon: &NeonSim) -> BTreeSet<i32> {
    let rows = neon.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'");
    let pids = rows.await.unwrap().into_iter().flatten().flatten();
    pids.map(|pid| pid.parse().unwrap()).collect()
}

/// Waits until no connection is made, checked, or settled.
async fn until_calm(pool: &Pool) {
    until(pool, "calm", |status| {
        status.connecting + status.checking + status.suspect + status.settling == 0
    })
    .await;
}

/// Waits for a state of the pool.
async fn until(pool: &Pool, what: &str, is_reached: impl Fn(&Status) -> bool) {
    let reached = async {
        while !is_reached(&pool.status()) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let reached = timeout(HANG, reached).await;
    reached.unwrap_or_else(|_| panic!("not {what}: {}", pool.status()));
}

#[tokio::test]
async fn lateness_alone_evicts_nobody() {
    let neon = neon().await;
    let pool = pool(&neon.url(), patient);
    let backends = fill(&pool, 5).await;
    neon.set_latency(Duration::from_millis(200));
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    neon.set_latency(Duration::ZERO);
    until_calm(&pool).await;
    let status = pool.status();
    assert_eq!(status.closed, Closed::default(), "{status}");
    assert!(alive(&neon).await.is_superset(&backends));
}

#[tokio::test]
async fn a_server_that_is_far_away_is_not_late_at_each_check() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| patient(policy).max_size(1));
    fill(&pool, 1).await;
    // A round trip takes 300 ms.
    neon.set_latency(Duration::from_millis(150));
    let opened = || pool.status().connects.opened;
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    until_calm(&pool).await;
    let before = opened();
    for _ in 0..6 {
        drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
        until_calm(&pool).await;
    }
    // The first answers still count as delayed ones, and a machine may stand still for a moment.
    assert!(opened() - before <= 2, "{}", pool.status());
}

#[tokio::test]
async fn callers_who_give_up_during_a_check_cost_no_connection() {
    let neon = neon().await;
    let pool = pool(&neon.url(), patient);
    let backends = fill(&pool, 10).await;
    neon.set_latency(Duration::from_millis(50));
    let mut callers = Box::pin(join_all((0..10).map(|_| pool.get())));
    // A caller that is given another's connection checks that one.
    while pool.status().checking < 10 {
        assert!(callers.as_mut().now_or_never().is_none());
    }
    assert_eq!(pool.status().waiting, 10);
    drop(callers);
    assert_eq!(pool.status().waiting, 0);
    neon.set_latency(Duration::ZERO);
    until(&pool, "idle again", |status| status.idle >= 10).await;
    let status = pool.status();
    assert_eq!(status.closed, Closed::default(), "{status}");
    assert!(alive(&neon).await.is_superset(&backends));
}

#[tokio::test]
async fn a_dead_connection_has_all_idle_ones_asked_at_once() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, patient);
        fill(&pool, 10).await;
        let before = pool.status().connects.opened;
        neon.suspend(Suspension::Silent).await;
        let first = timeout(HANG, pool.get()).await.unwrap().unwrap();
        let status = pool.status();
        assert_eq!((status.idle, status.suspect), (0, 10), "{status}");
        // The second caller waits for none of them.
        let second = timeout(HANG, pool.get()).await.unwrap().unwrap();
        assert_eq!(pool.status().connects.opened, before + 2);
        drop((first, second));
    }
}

#[tokio::test]
async fn whose_check_is_late_waits_for_a_new_connection_and_not_for_another_check() {
    let neon = neon().await;
    let pool = pool(&neon.url(), patient);
    fill(&pool, 5).await;
    neon.suspend(Suspension::Silent).await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { drop(pool.get().await.unwrap()) }
    });
    until(&pool, "late", |status| status.suspect > 0).await;
    let status = pool.status();
    assert_eq!((status.suspect, status.checking), (5, 0), "{status}");
    timeout(HANG, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_connection_that_was_terminated_costs_its_siblings_nothing() {
    let neon = neon().await;
    let pool = pool(&neon.url(), patient);
    let backends = fill(&pool, 5).await;
    let victim = BTreeSet::first(&backends).unwrap();
    neon.sql(&format!("SELECT pg_terminate_backend({victim})"))
        .await
        .unwrap();
    for _ in 0..2 {
        // All five are asked.
        let callers = (0..5).map(|_| pool.get());
        let held = join_all(callers).await;
        assert!(held.iter().all(Result::is_ok));
    }
    until_calm(&pool).await;
    let closed = pool.status().closed;
    assert_eq!(closed.ended + closed.failed_check, 1, "{closed:?}");
}

#[tokio::test]
async fn a_failed_connect_robs_nobody_of_the_connection_that_is_being_checked() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| patient(policy).max_size(3));
    let mut connection = pool.get().await.unwrap();
    let its_own = backend(&mut connection).await;
    // Checks of this connection are told from logins by the count of its flights.
    let logged_in = neon.counters().direct;
    for _ in 0..10 {
        backend(&mut connection).await;
    }
    let later = logged_in.handshake_flights + logged_in.flights + 5;
    drop(connection);
    neon.refuse_connections(
        1000,
        "password authentication failed for user 'neondb_owner'",
    );
    // The first check has its answer after 2 s, so that the next is not late before 8 s.
    neon.hold_answers(later);
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    assert!(matches!(error, PoolError::Connect(_)), "{error}");
    sleep(Duration::from_secs(2)).await;
    neon.release_answers();
    until_calm(&pool).await;

    neon.hold_answers(later);
    let mut first = Box::pin(pool.get());
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(pool.status().checking, 1);
    // The connect fails, and again a second later: then callers are told.
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    assert!(matches!(error, PoolError::Connect(_)), "{error}");
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(pool.status().checking, 1);
    neon.release_answers();
    let mut served = timeout(HANG, first).await.unwrap().unwrap();
    assert_eq!(backend(&mut served).await, its_own);
}

#[tokio::test]
async fn an_unfinished_statement_is_settled_while_others_are_handed_out() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| {
        let policy = policy.never_suspends().validation_bypass(HANG);
        policy.max_size(2)
    });
    let backends = fill(&pool, 2).await;
    let mut unfinished = pool.get().await.unwrap();
    let its_own = backend(&mut unfinished).await;
    let statement = unfinished.batch_execute("SELECT pg_sleep(0.05)");
    assert!(Box::pin(statement).now_or_never().is_none());
    drop(unfinished);
    let status = pool.status();
    assert_eq!((status.idle, status.checking), (1, 1), "{status}");
    let mut other = pool.get().now_or_never().unwrap().unwrap();
    assert_ne!(backend(&mut other).await, its_own);
    drop(other);
    // It has finished, or has taken too long: a connection is closed for the latter alone.
    until_calm(&pool).await;
    let status = pool.status();
    assert_eq!(
        u64::from(status.idle) + status.closed.abandoned,
        2,
        "{status}"
    );
    assert!(fill(&pool, status.idle as usize).await.is_subset(&backends));
}

#[tokio::test]
async fn a_connect_goes_on_for_the_next_caller() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    neon.set_latency(Duration::from_millis(20));
    assert!(pool.get().now_or_never().is_none());
    assert_eq!((pool.status().connecting, pool.status().waiting), (1, 0));
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    assert_eq!(neon.counters().direct.attempts, 1);
}

#[tokio::test]
async fn get_timeout_takes_the_place_of_checkout_timeout() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(1).checkout_timeout(HANG)
    });
    let held = pool.get().await.unwrap();
    let brief = Duration::from_millis(10);
    match pool.get_timeout(brief).await.unwrap_err() {
        PoolError::Exhausted { waited, .. } => assert_eq!(waited, brief),
        other => panic!("{other}"),
    }
    drop(held);
    pool.get_timeout(HANG).await.unwrap();
}

#[tokio::test]
async fn try_get_takes_what_was_heard_from_a_moment_ago_and_sends_nothing() {
    let neon = neon().await;
    for (bypass, is_taken) in [(HANG, true), (Duration::ZERO, false)] {
        let pool = pool(&neon.url(), |policy| {
            policy.never_suspends().validation_bypass(bypass)
        });
        assert!(pool.try_get().is_none());
        fill(&pool, 1).await;
        let before = neon.counters();
        let taken = pool.try_get();
        assert_eq!(taken.is_some(), is_taken);
        assert!(pool.try_get().is_none(), "there is but one");
        drop(taken);
        assert_eq!((neon.counters() - before).direct.bytes_in, 0);
        assert_eq!(pool.status().idle, 1);
        let waiting = pool.get().await.unwrap();
        assert!(pool.try_get().is_none());
        drop(waiting);
    }
}

#[tokio::test]
async fn try_get_passes_over_those_that_would_have_to_be_asked() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| {
        policy
            .never_suspends()
            .validation_bypass(Duration::from_secs(5))
    });
    let mut quiet = pool.get().await.unwrap();
    let its_own = backend(&mut quiet).await;
    sleep(Duration::from_secs(6)).await;
    fill(&pool, 1).await;
    // The one that has said nothing for long is on top.
    drop(quiet);
    for _ in 0..2 {
        let mut taken = pool.try_get().expect("one was heard from");
        assert_ne!(backend(&mut taken).await, its_own);
    }
    assert_eq!(pool.status().idle, 2);
}

#[tokio::test]
async fn a_connection_whose_copy_has_failed_is_back_at_once() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let backends = fill(&pool, 1).await;
    neon.set_latency(Duration::from_millis(20));
    let mut connection = pool.get().await.unwrap();
    let mut copy = connection
        .copy_in("COPY users (id) FROM STDIN")
        .await
        .unwrap();
    copy.send(b"no number\n").await.unwrap();
    copy.finish().await.unwrap_err();
    let next = tokio::spawn({
        let pool = pool.clone();
        async move { backend(&mut pool.get().await.unwrap()).await }
    });
    tokio::task::yield_now().await;
    drop(connection);
    let next = timeout(HANG, next).await.unwrap().unwrap();
    let status = pool.status();
    assert_eq!(
        (status.closed.abandoned, status.connects.opened),
        (0, 1),
        "{status}"
    );
    assert!(backends.contains(&next));
}

#[tokio::test]
async fn a_statement_that_was_given_up_says_nothing_of_logins() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(3));
    for _ in 0..3 {
        let mut connection = pool.get().await.unwrap();
        let given_up: Result<(), diesel::result::Error> = connection
            .transaction(async |connection| {
                let sleeps = connection.batch_execute("SELECT pg_sleep(60)");
                timeout(Duration::from_millis(50), sleeps)
                    .await
                    .unwrap_or(Err(diesel::result::Error::NotFound))
            })
            .await;
        given_up.unwrap_err();
        drop(connection);
    }
    until_calm(&pool).await;
    let closed = pool.status().closed;
    assert_eq!((closed.abandoned, closed.ended), (3, 0), "{closed}");
    // Had logins proved nothing, this one would be asked, and would have had to wait.
    let before = pool.status().checks;
    fill(&pool, 1).await;
    let after = pool.status().checks;
    assert_eq!((after.passed, after.failed), (before.passed, before.failed));
}
