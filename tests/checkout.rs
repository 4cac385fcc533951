//! The connections that `get` hands out, and the silence of an idle pool.

mod common;

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    ConnectionManager, DatabaseUrl, Policy, PolicyBuilder, Pool, PoolError, RetryError,
};
use futures_util::FutureExt;
use neon_sim::{NeonSim, Suspension};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use common::{HANG, backend, neon_with, pool};

const SUSPENSIONS: [Suspension; 3] = [Suspension::Normal, Suspension::Reset, Suspension::Silent];

async fn start() -> NeonSim {
    neon_with(|neon| neon.cold_start(Duration::from_millis(50))).await
}

fn url(neon: &NeonSim) -> DatabaseUrl {
    DatabaseUrl::parse(&neon.url()).unwrap()
}

/// Opens `n` connections and gives them all back.
async fn fill(pool: &Pool, n: usize) {
    let mut held = Vec::new();
    for _ in 0..n {
        let mut connection = pool.get().await.unwrap();
        backend(&mut connection).await;
        held.push(connection);
    }
    drop(held);
    assert_eq!(pool.status().idle as usize, n);
}

#[tokio::test]
async fn nobody_is_handed_a_connection_that_died_in_a_suspension() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = Pool::builder(url)
            .never_suspends()
            .max_size(5)
            // Every connection is checked, as if it had been idle for long.
            .validation_bypass(Duration::ZERO)
            .validation_timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        for suspension in SUSPENSIONS {
            fill(&pool, 5).await;
            neon.suspend(suspension).await;
            let burst = (0..10).map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut connection = pool.get().await.expect("a connection");
                    connection
                        .batch_execute("SELECT 1")
                        .await
                        .expect("that works");
                })
            });
            for task in burst.collect::<Vec<_>>() {
                timeout(HANG, task).await.unwrap().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn one_discovery_evicts_all_that_died_together() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy
            .never_suspends()
            .validation_bypass(Duration::ZERO)
            // The replacement comes first, on a slow machine too.
            .validation_timeout(Duration::from_secs(10))
    });
    fill(&pool, 5).await;
    neon.suspend(Suspension::Silent).await;

    let before = neon.counters().direct.connections;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(timeout(HANG, pool.get()).await.unwrap().unwrap());
    }
    assert_eq!(neon.counters().direct.connections - before, 5);
    // Nobody has waited for more than one of the dead connections.
    assert_eq!(pool.status().checks.failed, 0);
}

#[tokio::test]
async fn a_check_that_was_cancelled_leaves_no_dead_connection_behind() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy
            .never_suspends()
            .max_size(1)
            .validation_bypass(Duration::ZERO)
            .validation_timeout(Duration::from_secs(10))
    });
    fill(&pool, 1).await;
    neon.suspend(Suspension::Silent).await;

    // The check is under way, and nobody waits for its response.
    assert!(pool.get().now_or_never().is_none());
    assert_eq!(pool.status().checking, 1);
    // The next caller has a new connection long before the check is over.
    timeout(HANG, pool.get()).await.unwrap().unwrap();
    let status = pool.status();
    assert_eq!((status.checks.failed, status.suspect), (0, 1), "{status}");
    assert_eq!((status.idle, status.size), (1, 2), "{status}");
}

#[tokio::test]
async fn a_connection_past_its_deadline_is_not_handed_out_before_the_reaper_comes() {
    let neon = start().await;
    let policy = Policy::builder()
        .suspend_after(Duration::from_secs(6))
        .build()
        .unwrap();
    let manager: ConnectionManager = ConnectionManager::new(&url(&neon), policy).unwrap();
    // bb8's own reaper comes only after 30 s.
    let pool = bb8::Pool::builder()
        .max_size(1)
        .build(manager)
        .await
        .unwrap();

    let first = pool.get().await.unwrap();
    let deadline = first.deadline();
    drop(first);
    let second = pool.get().await.unwrap();
    assert_eq!(second.deadline(), deadline, "young enough to come again");
    drop(second);

    tokio::time::sleep_until(deadline).await;
    let third = pool.get().await.unwrap();
    assert!(third.deadline() > deadline);
    assert_eq!(neon.counters().direct.connections, 2);
}

#[tokio::test]
async fn max_lifetime_bounds_every_deadline() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(20));
    let mut deadlines = Vec::new();
    let mut held = Vec::new();
    for _ in 0..20 {
        let connection = pool.get().await.unwrap();
        let lifetime = connection.entry().deadline() - tokio::time::Instant::now();
        assert!(lifetime <= pool.policy().max_lifetime());
        assert!(lifetime + connection.entry().age() >= pool.policy().max_lifetime() * 3 / 4);
        deadlines.push(connection.entry().deadline() - Duration::ZERO);
        held.push(connection);
    }
    let spread = *deadlines.iter().max().unwrap() - *deadlines.iter().min().unwrap();
    assert!(
        spread > Duration::from_secs(1),
        "they would all end at once"
    );
}

#[tokio::test]
async fn a_connection_that_comes_back_in_a_transaction_is_closed() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    for begin in ["BEGIN", "BEGIN; SAVEPOINT s"] {
        let mut connection = pool.get().await.unwrap();
        let before = backend(&mut connection).await;
        connection.batch_execute(begin).await.unwrap();
        drop(connection);

        let mut connection = pool.get().await.unwrap();
        assert_ne!(backend(&mut connection).await, before);
    }
    // The server has another status for a transaction that has failed.
    let mut connection = pool.get().await.unwrap();
    connection.batch_execute("BEGIN").await.unwrap();
    connection
        .batch_execute("SELECT nothing")
        .await
        .unwrap_err();
    drop(connection);
    let mut connection = pool.get().await.unwrap();
    backend(&mut connection).await;
}

#[tokio::test]
async fn a_transaction_that_ended_keeps_its_connection() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(1).validation_bypass(HANG)
    });
    let mut connection = pool.get().await.unwrap();
    let before = backend(&mut connection).await;
    let sum: i32 = connection
        .transaction(async |connection| {
            diesel::select(1.into_sql::<Integer>() + 2.into_sql::<Integer>())
                .get_result(connection)
                .await
        })
        .await
        .unwrap();
    assert_eq!(sum, 3);
    drop(connection);
    let mut connection = pool.get().await.unwrap();
    assert_eq!(backend(&mut connection).await, before);
}

#[tokio::test]
async fn an_error_in_a_statement_keeps_the_connection() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(1).validation_bypass(HANG)
    });
    let mut connection = pool.get().await.unwrap();
    let before = backend(&mut connection).await;
    connection
        .batch_execute("SELECT nothing")
        .await
        .unwrap_err();
    drop(connection);
    let mut connection = pool.get().await.unwrap();
    assert_eq!(backend(&mut connection).await, before);
}

#[tokio::test]
async fn an_idle_pool_sends_not_one_byte_and_closes_its_connections_within_suspend_after() {
    // The compute is awake for longer than any pause while the pools fill.
    const WINDOW: Duration = Duration::from_secs(3);

    let neon = neon_with(|neon| neon.suspend_after(WINDOW)).await;
    for url in [neon.url(), neon.pooled_url()] {
        // The first pool's connections outlive the test, so that only silence can explain the sleep; the second pool
        // closes its connections in time.
        let outliving = pool(&url, PolicyBuilder::never_suspends);
        let closing = pool(&url, |policy| policy.suspend_after(WINDOW / 3));
        let terminates = || {
            let counted = neon.counters();
            counted.direct.terminates + counted.pooled.terminates
        };
        let terminated = terminates();
        fill(&outliving, 5).await;
        drop(closing.get().await.unwrap());
        timeout(HANG, async {
            // On a slow machine the compute may have slept already. And the stand-in counts only what it has read.
            while !neon.is_suspended() || closing.status().size > 0 || terminates() == terminated {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();

        let before = neon.counters();
        tokio::time::sleep(WINDOW).await;
        let since = neon.counters() - before;
        for endpoint in [since.direct, since.pooled] {
            assert_eq!((endpoint.bytes_in, endpoint.attempts), (0, 0));
        }
        assert_eq!((since.suspensions, since.wakes), (0, 0));
        assert!(neon.is_suspended());
    }
}

#[tokio::test]
async fn validation_bypass_hands_out_a_connection_heard_from_a_moment_ago_unasked() {
    let neon = start().await;
    for (moment, asked) in [(HANG, 0), (Duration::from_millis(1), 1)] {
        let pool = pool(&neon.url(), |policy| {
            policy.never_suspends().validation_bypass(moment)
        });
        fill(&pool, 1).await;
        let before = neon.counters();
        if asked > 0 {
            tokio::time::sleep(moment).await;
        }
        drop(pool.get().await.unwrap());
        assert_eq!((neon.counters() - before).direct.flights, asked);
    }
}

#[tokio::test]
async fn validation_bypass_allocates_nothing() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        // The bypass lasts long enough for a busy machine.
        policy.never_suspends().validation_bypass(HANG)
    });
    fill(&pool, 3).await;
    let get_and_drop = || drop(pool.get().now_or_never().expect("at once").unwrap());
    let before = neon.counters();
    let allocated = allocation_counter::measure(get_and_drop);
    assert_eq!(allocated.count_total, 0);
    assert_eq!((neon.counters() - before).direct.bytes_in, 0);
}

#[tokio::test]
async fn idle_timeout_closes_connections_and_nothing_opens_in_their_place() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy
            .never_suspends()
            .idle_timeout(Duration::from_millis(100))
    });
    fill(&pool, 3).await;
    timeout(HANG, async {
        while pool.status().size > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(neon.counters().direct.attempts, 3);
    assert_eq!(pool.status().closed.idle, 3);
}

#[tokio::test]
async fn callers_who_give_up_do_not_keep_a_dead_generation_alive() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy.never_suspends().validation_bypass(Duration::ZERO)
    });
    fill(&pool, 10).await;
    neon.suspend(Suspension::Silent).await;
    // Too short for a replacement: no caller has found the dead connection yet.
    for _ in 0..3 {
        let impatient = timeout(Duration::from_millis(1), pool.get()).await;
        assert!(impatient.is_err());
    }
    timeout(HANG, pool.get()).await.unwrap().unwrap();
    fill(&pool, 10).await;
    let dead = async {
        while pool.status().closed.failed_check < 10 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, dead)
        .await
        .unwrap_or_else(|_| panic!("{}", pool.status()));
}

#[tokio::test]
async fn waiters_are_served_in_the_order_in_which_they_came() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let held = pool.get().await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for i in 0..10 {
        let (theirs, served) = (pool.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            let _connection = theirs.get().await.unwrap();
            served.send(i).unwrap();
        }));
        while pool.status().waiting <= i {
            tokio::task::yield_now().await;
        }
    }
    drop(held);
    for expected in 0..10 {
        assert_eq!(timeout(HANG, order.recv()).await.unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn max_size_bounds_the_connections_and_a_caller_that_gets_none_is_told() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(2).checkout_timeout(Duration::from_secs(3))
    });
    let held = (
        pool.get_timeout(HANG).await.unwrap(),
        pool.get_timeout(HANG).await.unwrap(),
    );
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    assert!(matches!(error, PoolError::Exhausted { .. }));
    assert!(error.is_transient());
    let text = error.to_string();
    for part in [
        "no connection became free within 3s (2 of 2 connections, 2 in use, 1 waiting, one held for ",
        "); raise max_size, or look for connections that are held too long",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(pool.status().waiting, 0);
    drop(held);
    pool.get().await.unwrap();
}

#[tokio::test]
async fn invalidating_replaces_every_connection() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(2));
    fill(&pool, 2).await;
    let held = pool.get().await.unwrap();
    pool.invalidate_all();
    drop(held);
    fill(&pool, 2).await;
    assert_eq!(neon.counters().direct.connections, 4);
}

#[tokio::test]
async fn closing_ends_idle_connections_and_waits_for_those_in_use() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(3));
    fill(&pool, 3).await;
    let mut held = pool.get_owned().await.unwrap();

    let error = pool.close(Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().contains("1 in use"), "{error}");
    assert!(pool.is_closed());
    timeout(HANG, async {
        while neon.counters().direct.terminates != 2 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("those that were idle end with Terminate");
    assert!(matches!(pool.get().await, Err(PoolError::Closed)));
    backend(&mut held).await;

    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close(HANG).await }
    });
    drop(held);
    timeout(HANG, closing).await.unwrap().unwrap().unwrap();
    assert_eq!(pool.status().size, 0);
}

#[tokio::test]
async fn connections_that_are_being_made_do_not_outlive_the_pool() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, PolicyBuilder::never_suspends);
        // Callers who give up leave connects behind that are still under way.
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.get().await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        pool.close(HANG).await.unwrap();
        assert_eq!(pool.status().size, 0);
        for caller in callers {
            let answer = timeout(HANG, caller).await.unwrap().unwrap();
            assert!(
                matches!(answer, Ok(()) | Err(PoolError::Closed)),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn those_who_wait_learn_at_once_that_the_pool_is_closed() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let held = pool.get().await.unwrap();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    while pool.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    pool.close(Duration::ZERO).await.unwrap_err();
    let error = timeout(HANG, waiter).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, PoolError::Closed));
    drop(held);
}

#[tokio::test]
async fn every_duration_may_be_endless() {
    const EVER: Duration = Duration::MAX;

    let neon = start().await;
    let endless = |policy: PolicyBuilder| {
        policy
            .max_size(1)
            .checkout_timeout(EVER)
            .connect_timeout(EVER)
            .validation_timeout(EVER)
            .retry_budget(EVER)
            .slow_checkout_threshold(EVER)
            .leak_detection_threshold(EVER)
    };
    let never = |policy: PolicyBuilder| {
        let policy = endless(policy).never_suspends().max_lifetime(EVER);
        policy.idle_timeout(EVER).validation_bypass(EVER)
    };
    let policies: [&dyn Fn(PolicyBuilder) -> PolicyBuilder; 3] = [
        &never,
        &|policy| never(policy).validation_bypass(Duration::ZERO),
        &|policy| endless(policy).suspend_after(EVER),
    ];
    for policy in policies {
        let pool = pool(&neon.url(), policy);
        // One connect fails, and one hangs until it times out.
        neon.refuse_connections(1, "Couldn't connect to compute node");
        let mut held = timeout(HANG, pool.get()).await.unwrap().unwrap();
        assert!(held.entry().deadline() > tokio::time::Instant::now() + HANG);
        backend(&mut held).await;
        let waiter = tokio::spawn({
            let pool = pool.clone();
            async move { pool.get().await.map(drop) }
        });
        while pool.status().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(held);
        timeout(HANG, waiter).await.unwrap().unwrap().unwrap();
        let attempts = std::sync::atomic::AtomicU32::new(0);
        let again = pool.retry().transaction(async |connection| {
            if attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                connection
                    .batch_execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
                    .await?;
            }
            Ok::<_, RetryError>(())
        });
        timeout(HANG, again).await.unwrap().unwrap();
        timeout(HANG, pool.close(EVER)).await.unwrap().unwrap();
    }

    let url = format!("{}&connect_timeout=2147483647", neon.url());
    let pool = pool(&url, |policy| policy);
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    let rendered = DatabaseUrl::parse(&url).unwrap().to_libpq();
    let connection = diesel_neon::Connection::establish(&rendered);
    drop(timeout(HANG, connection).await.unwrap());
}

#[tokio::test]
async fn an_owned_connection_moves_to_another_task() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy);
    let mut connection = pool.get_owned().await.unwrap();
    let text = tokio::spawn(async move {
        diesel::select("moved".into_sql::<Text>())
            .get_result::<String>(&mut connection)
            .await
    });
    assert_eq!(text.await.unwrap().unwrap(), "moved");
    assert_eq!(pool.status().idle, 1);
}

#[tokio::test]
async fn what_is_shown_holds_no_password() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy);
    let connection = pool.get().await.unwrap();
    let manager: ConnectionManager =
        ConnectionManager::new(&url(&neon), Policy::default()).unwrap();
    for shown in [
        format!("{pool:?}"),
        format!("{connection:?}"),
        format!("{manager:?}"),
        format!("{:?}", Pool::builder(url(&neon))),
    ] {
        assert!(!shown.contains(neon.password()), "{shown}");
    }
}

#[test]
fn a_pool_is_built_outside_of_a_runtime_and_says_that_it_needs_one_to_connect() {
    let url = DatabaseUrl::parse("postgresql://u@localhost/db").unwrap();
    let pool = Pool::builder(url).build().unwrap();
    let error = pool.get().now_or_never().unwrap().unwrap_err();
    assert!(matches!(error, PoolError::NoRuntime), "{error}");
    assert!(!error.is_transient());
}

#[test]
fn callers_outside_of_a_runtime_cost_no_connection() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let neon = runtime.block_on(start());
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(1).validation_bypass(Duration::ZERO)
    });
    runtime.block_on(fill(&pool, 1));
    for _ in 0..3 {
        let error = pool.get().now_or_never().unwrap().unwrap_err();
        assert!(matches!(error, PoolError::NoRuntime), "{error}");
    }
    // Another executor may run a task of tokio's.
    let tasks = LocalSet::new();
    let asked = pool.clone();
    let caller = tasks.spawn_local(async move { asked.get().await.map(drop) });
    let mut running = Box::pin(tasks.run_until(caller));
    let ran = std::iter::repeat_with(|| (&mut running).now_or_never());
    let got = ran.take(3).flatten().next().expect("it waits for nothing");
    assert!(matches!(got, Ok(Err(PoolError::NoRuntime))), "{got:?}");
    runtime.block_on(async {
        timeout(HANG, pool.get()).await.unwrap().unwrap();
    });
    assert_eq!(pool.status().connects.opened, 1);
}
