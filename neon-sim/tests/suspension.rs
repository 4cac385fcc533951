//! Scale to zero: what it does to sessions, what keeps it away, and what waking is like.

mod common;

use std::time::{Duration, Instant};

use common::{bounded, config, connect, eventually, psql, refusal, try_connect};
use neon_sim::{Builder, Event, NeonSim, Suspension};
use tokio::sync::broadcast::error::TryRecvError;
use tokio_postgres::error::SqlState;

const WINDOW: Duration = Duration::from_millis(400);

async fn start(builder: Builder) -> NeonSim {
    bounded(builder.cold_start(Duration::from_millis(50)).start())
        .await
        .unwrap()
}

fn unhurried() -> Builder {
    NeonSim::builder().never_suspend()
}

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

#[tokio::test]
async fn nothing_of_the_time_before_is_met_after_waking_at_once() {
    let neon = bounded(unhurried().cold_start(Duration::ZERO).start())
        .await
        .unwrap();
    for _ in 0..20 {
        for url in [neon.pooled_url(), neon.url()] {
            let (client, _) = connect(&url, neon.ca_path()).await;
            client.batch_execute("BEGIN; SELECT 1").await.unwrap();
            neon.suspend(Suspension::Normal).await;
            let (client, _) = connect(&url, neon.ca_path()).await;
            client.query_typed("SELECT 1", &[]).await.unwrap();
        }
    }
    assert_eq!(neon.counters().wakes, 40);
}

#[tokio::test]
async fn wake_ups_fail_as_often_as_asked() {
    let neon = start(unhurried()).await;
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

#[tokio::test]
async fn statements_restart_the_window() {
    let window = Duration::from_secs(1);
    let neon = start(NeonSim::builder().suspend_after(window)).await;
    let (direct, _) = connect(&neon.url(), neon.ca_path()).await;
    let (pooled, _) = connect(&neon.pooled_url(), neon.ca_path()).await;
    let started = Instant::now();
    while started.elapsed() < window * 2 {
        for client in [&direct, &pooled] {
            client.simple_query("").await.unwrap();
            tokio::time::sleep(window / 20).await;
        }
    }
    assert_eq!(neon.counters().suspensions, 0);
    // Terminating is no statement: the sessions' end does not count.
    let mut events = neon.events();
    drop((direct, pooled));
    let suspended = bounded(events.recv()).await.unwrap();
    assert!(matches!(suspended, Event::Suspended { sessions: 0, .. }));
    assert!(neon.counters().time_suspended < started.elapsed());
}

#[tokio::test]
async fn a_transaction_or_a_running_statement_keeps_the_compute_awake() {
    let neon = start(NeonSim::builder().suspend_after(WINDOW)).await;
    for url in [neon.url(), neon.pooled_url()] {
        let (client, _) = connect(&url, neon.ca_path()).await;
        let before = neon.counters();
        client.batch_execute("BEGIN").await.unwrap();
        tokio::time::sleep(WINDOW * 2).await;
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute("SELECT pg_sleep(0.8)").await.unwrap();
        assert_eq!((neon.counters() - before).suspensions, 0);
        eventually("it is suspended then", async || neon.is_suspended()).await;
    }
}

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
