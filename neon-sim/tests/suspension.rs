//! Scale to zero: how sessions end, what keeps the compute awake, and how it wakes. Each test quotes its fact.

mod common;

use std::time::{Duration, Instant};

use common::{bounded, config, connect, eventually, psql, refusal, try_connect};
use neon_sim::{Builder, Event, NeonSim, Suspension};
use tokio::sync::broadcast::error::TryRecvError;
use tokio_postgres::error::SqlState;

const WINDOW: Duration = Duration::from_millis(1500);

async fn start(builder: Builder) -> NeonSim {
    bounded(builder.cold_start(Duration::from_millis(50)).start())
        .await
        .unwrap()
}

fn unhurried() -> Builder {
    NeonSim::builder().never_suspend()
}

/// "Suspension of an idle direct session ends with FATAL 57P01." "The pooler is PgBouncer next to the compute (suspends
/// with it)": its clients are just closed. "No session state survives": neither locks nor temporary tables.
#[tokio::test]
async fn direct_sessions_are_told_and_pooled_ones_are_not() {
    let neon = start(unhurried()).await;
    let (direct, direct_driver) = connect(&neon.url(), neon.ca_path()).await;
    let (pooled, pooled_driver) = connect(&neon.pooled_url(), neon.ca_path()).await;
    direct
        .batch_execute("CREATE TEMP TABLE t ()")
        .await
        .unwrap();
    direct
        .batch_execute("SELECT pg_advisory_lock(1)")
        .await
        .unwrap();
    pooled
        .batch_execute("SELECT pg_advisory_lock(2)")
        .await
        .unwrap();

    neon.suspend(Suspension::Normal).await;

    assert!(neon.is_suspended());
    let told = common::told(bounded(direct_driver).await.unwrap());
    assert_eq!(
        (told.severity(), told.code()),
        ("FATAL", &SqlState::ADMIN_SHUTDOWN)
    );
    let message = "terminating connection due to administrator command";
    assert_eq!(told.message(), message);
    let closed = bounded(pooled_driver).await.unwrap();
    assert!(closed.unwrap_err().is_closed());
    let left = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + \
        (SELECT count(*) FROM pg_class WHERE relname = 't')";
    assert_eq!(neon.sql(left).await.unwrap()[0][0].as_deref(), Some("0"));
}

/// A suspension that does not wait for the statements under way ends them as it ends idle sessions: "FATAL 57P01" on the
/// direct endpoint, a closed connection on the pooled one.
#[tokio::test]
async fn a_running_statement_is_ended_too() {
    let neon = start(unhurried()).await;
    let (direct, _) = connect(&neon.url(), neon.ca_path()).await;
    let (pooled, _) = connect(&neon.pooled_url(), neon.ca_path()).await;
    let sleeping = async || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        neon.sql(running).await.unwrap()[0][0].clone().unwrap()
    };
    let asleep =
        async |client: tokio_postgres::Client| client.batch_execute("SELECT pg_sleep(600)").await;
    let (direct, pooled) = (tokio::spawn(asleep(direct)), tokio::spawn(asleep(pooled)));
    eventually("both statements run", async || sleeping().await == "2").await;
    neon.suspend(Suspension::Normal).await;
    let direct = bounded(direct).await.unwrap().unwrap_err();
    assert_eq!(direct.code(), Some(&SqlState::ADMIN_SHUTDOWN));
    assert!(bounded(pooled).await.unwrap().unwrap_err().is_closed());
    assert_eq!(sleeping().await, "0");
}

/// Of the stand-in's own: a network that resets what it has forgotten.
#[tokio::test]
async fn connections_are_reset_on_request() {
    let neon = start(unhurried()).await;
    for url in [neon.url(), neon.pooled_url()] {
        let (_client, driver) = connect(&url, neon.ca_path()).await;
        neon.suspend(Suspension::Reset).await;
        let error = bounded(driver).await.unwrap().unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        let reset = source.downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        neon.wake().await;
    }
}

/// "No timeout of its own on a compute that hangs after the connection is made: the client needs one."
#[tokio::test]
async fn silence_is_all_that_is_heard_on_request() {
    let neon = start(unhurried()).await;
    for url in [neon.url(), neon.pooled_url()] {
        let (client, driver) = connect(&url, neon.ca_path()).await;
        neon.suspend(Suspension::Silent).await;
        let query = client.simple_query("SELECT 1");
        let answer = tokio::time::timeout(Duration::from_millis(300), query).await;
        assert!(answer.is_err(), "nothing should answer");
        assert!(!driver.is_finished());
        // Others are served again.
        connect(&url, neon.ca_path()).await;
        assert!(!driver.is_finished());
    }
}

/// "A suspended compute just holds the connection while it wakes."
#[tokio::test]
async fn the_next_connection_waits_for_a_cold_start() {
    let cold_start = Duration::from_millis(300);
    let neon = bounded(unhurried().cold_start(cold_start).start())
        .await
        .unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        neon.suspend(Suspension::Normal).await;
        let mut events = neon.events();
        let before = neon.counters();
        let started = Instant::now();
        // Those that come meanwhile wait with it.
        let (one, other) =
            tokio::join!(connect(&url, neon.ca_path()), connect(&url, neon.ca_path()));
        assert!(started.elapsed() >= cold_start);
        for (client, _) in [one, other] {
            client.simple_query("SELECT 1").await.unwrap();
        }
        assert_eq!(events.recv().await.unwrap(), Event::Waking);
        let woken = events.recv().await.unwrap();
        assert!(matches!(woken, Event::Woken { .. }), "{woken:?}");
        assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
        assert_eq!((neon.counters() - before).wakes, 1);
        assert!(!neon.is_suspended());
    }
}

/// "The pooler suspends with the compute": none of its old server connections serves a new client.
#[tokio::test]
async fn nothing_of_the_time_before_is_met_after_waking_at_once() {
    let neon = bounded(unhurried().cold_start(Duration::ZERO).start())
        .await
        .unwrap();
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    for left in ["BEGIN; SELECT 1", "SELECT pg_advisory_lock(1)"].repeat(10) {
        for url in [neon.pooled_url(), neon.url()] {
            let (client, _) = connect(&url, neon.ca_path()).await;
            client.batch_execute(left).await.unwrap();
            neon.suspend(Suspension::Normal).await;
            let (client, _) = connect(&url, neon.ca_path()).await;
            let held = client.query_typed(locks, &[]).await.unwrap();
            assert_eq!(held[0].get::<_, i64>(0), 0);
        }
    }
    assert_eq!(neon.counters().wakes, 40);
}

/// "Worth another try: `Control plane request failed`." Without the proxy's own retries, each try has its client.
#[tokio::test]
async fn wake_ups_fail_as_often_as_asked() {
    let neon = start(unhurried().wake_retries(0)).await;
    neon.fail_wakes(2, "Control plane request failed");
    // It is awake, so nothing has to wake.
    connect(&neon.url(), neon.ca_path()).await;
    neon.suspend(Suspension::Normal).await;
    for _ in 0..2 {
        let failed = try_connect(&config(&neon.url()), neon.ca_path()).await;
        assert_eq!(refusal(failed), "Control plane request failed");
        assert!(neon.is_suspended());
    }
    connect(&neon.url(), neon.ca_path()).await;
    let counters = neon.counters();
    assert_eq!((counters.wakes, counters.suspensions), (1, 1));
    assert_eq!(
        (counters.direct.attempts, counters.direct.connections),
        (4, 2)
    );
}

/// "The proxy retries the wake-up by itself for about 4.5 s."
#[tokio::test]
async fn the_proxy_tries_again_to_wake_the_compute() {
    let served = async |failures| {
        let neon = start(unhurried()).await;
        neon.suspend(Suspension::Normal).await;
        neon.fail_wakes(failures, "Control plane request failed");
        let started = Instant::now();
        let attempt = try_connect(&config(&neon.url()), neon.ca_path()).await;
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(4), "{took:?}");
        match attempt {
            Ok(_) => None,
            refused => Some(refusal(refused)),
        }
    };
    let (seven, eight) = tokio::join!(served(7), served(8));
    assert_eq!(seven, None);
    assert_eq!(eight.as_deref(), Some("Control plane request failed"));
}

/// "The proxy caches a final wake-up error": it does not try again, since quick tries cannot succeed.
#[tokio::test]
async fn a_final_error_of_a_wake_up_is_told_without_another_try() {
    let neon = start(unhurried()).await;
    neon.suspend(Suspension::Normal).await;
    let mut events = neon.events();
    let message = "Control plane request failed: endpoint is disabled";
    neon.fail_wakes(2, message);
    let failed = try_connect(&config(&neon.url()), neon.ca_path()).await;
    assert_eq!(refusal(failed), message);
    let failed = events.try_recv().unwrap();
    assert!(matches!(failed, Event::WakeFailed { .. }), "{failed:?}");
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
}

/// Only who has proved who he is wakes the compute: the proxy checks passwords by itself.
#[tokio::test]
async fn a_wrong_password_wakes_nobody() {
    let neon = start(unhurried()).await;
    neon.suspend(Suspension::Normal).await;
    let mut wrong = config(&neon.url());
    wrong.password("wrong");
    refusal(try_connect(&wrong, neon.ca_path()).await);
    neon.sql("SELECT 1").await.unwrap();
    assert!(neon.is_suspended());
}

/// "Suspension of an idle direct session": sessions alone do not count as activity, on either endpoint.
#[tokio::test]
async fn an_idle_socket_does_not_keep_the_compute_awake() {
    let neon = start(NeonSim::builder().suspend_after(WINDOW)).await;
    let (direct, _) = connect(&neon.url(), neon.ca_path()).await;
    let (pooled, _) = connect(&neon.pooled_url(), neon.ca_path()).await;
    eventually("both are closed", async || {
        direct.is_closed() && pooled.is_closed()
    })
    .await;
    assert!(neon.is_suspended());
    assert!(neon.counters().suspensions >= 1);
}

/// Scale to zero: the compute is suspended once nothing has been active for the length of the window.
#[tokio::test]
async fn statements_restart_the_window() {
    let window = Duration::from_secs(3);
    let neon = start(NeonSim::builder().suspend_after(window)).await;
    let (direct, _) = connect(&neon.url(), neon.ca_path()).await;
    let (pooled, _) = connect(&neon.pooled_url(), neon.ca_path()).await;
    let started = Instant::now();
    while started.elapsed() < window * 2 {
        for client in [&direct, &pooled] {
            client.simple_query("").await.unwrap();
            tokio::time::sleep(window / 60).await;
        }
    }
    assert_eq!(neon.counters().suspensions, 0);
}

/// Scale to zero: a Terminate is no activity, so that the end of some sessions does not spare the others.
#[tokio::test]
async fn sessions_that_end_do_not_restart_the_window() {
    let neon = start(NeonSim::builder().suspend_after(WINDOW)).await;
    let mut events = neon.events();
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(connect(&neon.url(), neon.ca_path()).await);
    }
    let suspended = loop {
        tokio::select! {
            event = events.recv() => break event.unwrap(),
            () = tokio::time::sleep(WINDOW / 5) => drop(sessions.pop()),
        }
    };
    match suspended {
        Event::Suspended { sessions, .. } => assert_ne!(sessions, 0),
        other => panic!("{other:?}"),
    }
}

/// Scale to zero: what is under way, an open transaction included, is activity.
#[tokio::test]
async fn a_transaction_or_a_running_statement_keeps_the_compute_awake() {
    let neon = start(NeonSim::builder().suspend_after(WINDOW)).await;
    for url in [neon.url(), neon.pooled_url()] {
        let (client, _) = connect(&url, neon.ca_path()).await;
        let before = neon.counters();
        client.batch_execute("BEGIN").await.unwrap();
        tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute("SELECT pg_sleep(2.5)").await.unwrap();
        assert_eq!((neon.counters() - before).suspensions, 0);
        eventually("it is suspended then", async || neon.is_suspended()).await;
    }
}

/// Scale to zero: what has ended is no activity, however it was spoken.
#[tokio::test]
async fn a_copy_ends_like_any_statement() {
    let neon = start(NeonSim::builder().suspend_after(WINDOW)).await;
    let copy = "CREATE TEMP TABLE t (id int); COPY t FROM PROGRAM 'echo 1'";
    assert!(
        psql(&neon.url(), copy, &[]).await.is_err(),
        "not a superuser"
    );
    let script = "\\copy (SELECT 1) TO STDOUT";
    assert_eq!(psql(&neon.url(), script, &[]).await.unwrap(), "1");
    let (client, _) = connect(&neon.url(), neon.ca_path()).await;
    client
        .batch_execute("CREATE TEMP TABLE t (id int)")
        .await
        .unwrap();
    let sink = client
        .copy_in::<_, &[u8]>("COPY t FROM STDIN")
        .await
        .unwrap();
    tokio::pin!(sink);
    assert_eq!(sink.finish().await.unwrap(), 0);
    eventually("it is suspended", async || neon.is_suspended()).await;
}

/// Of the stand-in's own: the time is counted while the compute sleeps, and then alone.
#[tokio::test]
async fn the_time_suspended_ends_when_the_compute_wakes() {
    let neon = start(unhurried()).await;
    let moment = Duration::from_millis(50);
    let suspended = || neon.counters().time_suspended;
    tokio::time::sleep(moment).await;
    assert_eq!(suspended(), Duration::ZERO);
    neon.suspend(Suspension::Normal).await;
    tokio::time::sleep(moment).await;
    let asleep = suspended();
    assert!(asleep >= moment, "{asleep:?}");
    neon.wake().await;
    let woken = suspended();
    assert!(woken >= asleep, "{woken:?}");
    tokio::time::sleep(moment).await;
    assert_eq!(suspended(), woken);
}
