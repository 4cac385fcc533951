//! The pool under faults: no caller fails that has time left, and no fault is made worse.

mod common;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::log::Log;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::SimpleAsyncConnection;
use diesel_neon::{
    ConnectErrorKind, Connection, DatabaseErrorExt, DatabaseUrl, PolicyBuilder, Pool, PoolError,
    RetryError,
};
use neon_sim::{NeonSim, Suspension};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use common::{HANG, neon_with};

async fn start() -> NeonSim {
    neon_with(|neon| neon.cold_start(Duration::from_millis(10))).await
}

fn pool(url: &str, policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Pool {
    common::pool(url, |p| {
        policy(p.never_suspends().validation_bypass(Duration::ZERO))
    })
}

/// Starts so many callers at once, each with one statement; returns their errors.
async fn burst(pool: &Pool, callers: usize) -> Vec<String> {
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut connection = pool.get().await.map_err(|error| error.to_string())?;
                let answer = connection.batch_execute("SELECT 1").await;
                answer.map_err(|error| error.to_string())
            })
        })
        .collect();
    let mut failures = Vec::new();
    for task in tasks {
        failures.extend(timeout(HANG, task).await.unwrap().unwrap().err());
    }
    failures
}

/// Has so many callers read in a loop for as long as `fault` takes, by turns with and without the pool's retry.
/// Returns the errors of the reads without retry.
async fn work_through(pool: &Pool, callers: usize, fault: impl Future<Output = ()>) -> Vec<Error> {
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (pool, over) = (pool.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let again =
                        pool.retry()
                            .idempotent()
                            .run(async |connection: &mut Connection| {
                                Ok::<_, RetryError>(connection.batch_execute(READ).await?)
                            });
                    again.await.expect("a read that is done again succeeds");
                    let mut connection = pool.get().await.expect("there is a connection in time");
                    failures.extend(connection.batch_execute(READ).await.err());
                }
                failures
            })
        })
        .collect();
    fault.await;
    over.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for task in tasks {
        failures.extend(timeout(HANG, task).await.unwrap().unwrap());
    }
    failures
}

/// Long enough that every connection is in the middle of a read at any time.
const READ: &str = "SELECT pg_sleep(0.01)";

/// The settings of `validation_bypass`: every connection is checked on checkout, or as few as by default.
const BYPASSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(500)];

/// Checks 20 callers on a pool of 10 while a server is away for two seconds.
async fn outage(neon: &NeonSim, url: &str, bypass: Duration, restart: impl AsyncFn(Duration)) {
    let pool = pool(url, |policy| policy.validation_bypass(bypass));
    assert_eq!(burst(&pool, 20).await, [""; 0]);
    let before = neon.counters();
    let began = Instant::now();
    let failures = work_through(&pool, 20, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        restart(Duration::from_secs(2)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    let failures = failures.await;
    let attempts = neon.counters() - before;
    let attempts = attempts.direct.attempts + attempts.pooled.attempts;
    for error in &failures {
        assert!(
            error.is_connection_lost() && error.is_transient(),
            "{error}"
        );
    }
    // One read was under way on each connection; a dead pooler fails some more before it is discovered.
    assert!(failures.len() <= 20, "{failures:?}");
    // Some thirty attempts: the pauses grow, and all callers share them. Without pauses there would be hundreds.
    let usual = 100 + 10 * began.elapsed().as_secs();
    assert!(attempts <= usual, "{attempts}");
    assert_eq!(burst(&pool, 20).await, [""; 0]);
    pool.close(HANG).await.unwrap();
}

#[tokio::test]
async fn a_pooler_that_is_killed_fails_what_was_under_way_and_nothing_else() {
    let neon = start().await;
    for bypass in BYPASSES {
        outage(&neon, &neon.pooled_url(), bypass, async |down| {
            neon.restart_pgbouncer(down).await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_fails_what_was_under_way_and_nothing_else() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        for bypass in BYPASSES {
            outage(&neon, &url, bypass, async |down| {
                neon.restart_postgres(down).await.unwrap();
            })
            .await;
        }
    }
}

/// A forwarder to a server, which can be shut and opened again.
struct Way {
    listener: Option<tokio::task::JoinHandle<()>>,
    /// Holds the port, so that no other socket is given it while the way is shut.
    _held: TcpSocket,
    from: SocketAddr,
    to: u16,
}

impl Way {
    /// Returns the forwarder, and `url` leading through it.
    async fn to(url: &str) -> (Self, String) {
        let to = DatabaseUrl::parse(url).unwrap().hosts()[0].port;
        let held = shared_socket("127.0.0.1:0".parse().unwrap());
        let from = held.local_addr().unwrap();
        let mut way = Self {
            listener: None,
            _held: held,
            from,
            to,
        };
        way.open().await;
        let through = url.replace(&format!(":{to}/"), &format!(":{}/", from.port()));
        (way, through)
    }

    async fn open(&mut self) {
        let listener = shared_socket(self.from).listen(64).unwrap();
        let to = self.to;
        self.listener = Some(tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            loop {
                let (mut here, _) = listener.accept().await.unwrap();
                streams.spawn(async move {
                    let there = tokio::net::TcpStream::connect(("127.0.0.1", to)).await;
                    tokio::io::copy_bidirectional(&mut here, &mut there.unwrap()).await
                });
            }
        }));
    }

    /// Refuses new clients, and cuts off the present ones.
    async fn shut(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await;
        }
    }
}

/// Returns a socket with an address that others of its kind may have too, one of which may listen.
fn shared_socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

#[tokio::test]
async fn whoever_has_time_is_served_when_the_proxy_is_back() {
    let neon = start().await;
    for has_connected in [true, false] {
        let (mut way, url) = Way::to(&neon.url()).await;
        let pool = pool(&url, |policy| {
            policy.checkout_timeout(Duration::from_secs(60))
        });
        if has_connected {
            assert_eq!(burst(&pool, 10).await, [""; 0]);
        }
        way.shut().await;
        // A later caller meets a pool that has been failing for longer.
        let mut callers = Vec::new();
        for _ in 0..50 {
            let pool = pool.clone();
            callers.push(tokio::spawn(async move { burst(&pool, 1).await }));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        way.open().await;
        for caller in callers {
            assert_eq!(timeout(HANG, caller).await.unwrap().unwrap(), [""; 0]);
        }
        pool.close(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_pooler_says_of_a_server_that_is_gone_is_told() {
    let neon = start().await;
    let pool = pool(&neon.pooled_url(), |policy| {
        policy
            .max_size(3)
            .checkout_timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(5))
            .validation_timeout(Duration::from_millis(500))
            // A statement that is sent unasked waits at the pooler until the server is back.
            .validation_bypass(Duration::ZERO)
    });
    assert_eq!(burst(&pool, 3).await, [""; 0]);
    assert!(pool.status().check_failure.is_none());
    let mut restart = pin!(neon.restart_postgres(Duration::from_secs(12)));
    let failures = async {
        while neon.sql("SELECT 1").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        burst(&pool, 3).await
    };
    let failures = tokio::select! {
        failures = failures => failures,
        _ = &mut restart => panic!("it was back before anybody had noticed"),
    };
    assert_eq!(failures.len(), 3);
    for failure in failures {
        assert!(failure.contains("server login"), "{failure}");
    }
    let status = pool.status();
    assert!(
        status.check_failure.is_some() && status.check_failed.is_some(),
        "{status}"
    );
    restart.await.unwrap();
    let pool = pool.clone();
    timeout(HANG, async { while !burst(&pool, 3).await.is_empty() {} })
        .await
        .unwrap();
    assert!(pool.status().check_failure.is_none());
}

#[tokio::test]
async fn a_burst_after_any_suspension_fails_nobody_a_hundred_times() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, |policy| policy);
        for cycle in 0..100 {
            let suspension = match cycle % 2 {
                0 => Suspension::Normal,
                _ => Suspension::Reset,
            };
            assert_eq!(burst(&pool, 50).await, [""; 0], "cycle {cycle}");
            neon.suspend(suspension).await;
        }
        assert!(pool.status().closed.ended > 0, "{:?}", pool.status());
        pool.close(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_death_is_discovered_once_and_fails_nobody() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        // Those that have just been opened are not checked: a check that is late would open another.
        let bypass = Duration::from_secs(2);
        let pool = pool(&url, |policy| policy.validation_bypass(bypass));
        for _ in 0..2 {
            burst(&pool, 50).await;
            neon.suspend(Suspension::Silent).await;
            tokio::time::sleep(bypass).await;
            let before = pool.status();
            assert_eq!(burst(&pool, 50).await, [""; 0]);
            let after = pool.status();
            let opened = after.connects.opened - before.connects.opened;
            assert!(opened <= u64::from(after.max_size), "{opened}: {after}");
        }
        pool.close(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_far_away_is_not_taken_for_a_dead_one() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, |policy| {
            policy.validation_timeout(Duration::from_secs(10))
        });
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(pool.get().await.unwrap());
        }
        drop(held);
        let before = pool.status();
        // A check takes so long that it counts as late, and a new connection several times that.
        neon.set_latency(Duration::from_millis(200));
        assert_eq!(burst(&pool, 10).await, [""; 0]);
        let checked = async {
            while pool.status().checking + pool.status().suspect > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(HANG, checked).await.unwrap();
        neon.set_latency(Duration::ZERO);
        let after = pool.status();
        // A connection that is given back meanwhile may be checked again.
        assert!(after.checks.passed - before.checks.passed >= 10, "{after}");
        assert_eq!(after.checks.failed, 0);
        pool.close(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn a_pooler_whose_servers_are_all_busy_is_not_taken_for_a_dead_one() {
    let neon = neon_with(|neon| neon.pgbouncer_settings([("default_pool_size", "1")])).await;
    let pool = pool(&neon.pooled_url(), |policy| {
        policy
            .max_size(2)
            .validation_timeout(Duration::from_secs(10))
    });
    let mut busy = pool.get().await.unwrap();
    drop(pool.get().await.unwrap());
    busy.batch_execute("BEGIN").await.unwrap();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiter.is_finished());
    busy.batch_execute("COMMIT").await.unwrap();
    timeout(HANG, waiter).await.unwrap().unwrap().unwrap();
    busy.batch_execute("SELECT 1").await.unwrap();
    let status = pool.status();
    assert_eq!(status.checks.failed, 0);
}

#[tokio::test]
async fn max_connecting_bounds_attempts_at_once() {
    let neon = start().await;
    neon.hang_connections(1000);
    let pool = pool(&neon.url(), |policy| {
        policy
            .max_connecting(3)
            .connect_timeout(HANG)
            .checkout_timeout(HANG)
    });
    let failures = tokio::spawn({
        let pool = pool.clone();
        async move { burst(&pool, 50).await }
    });
    let three = async {
        while neon.counters().direct.attempts < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, three).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(neon.counters().direct.attempts, 3);
    let _ = pool.close(Duration::ZERO).await;
    assert_eq!(failures.await.unwrap().len(), 50);
}

const WRONG_PASSWORD: &str = "password authentication failed for user 'neondb_owner'";

#[tokio::test]
async fn a_final_failure_is_told_to_all_who_wait_in_vain() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(20).max_connecting(2));
    let held = timeout(HANG, pool.get()).await.unwrap().unwrap();
    neon.refuse_connections(1000, WRONG_PASSWORD);
    let before = neon.counters().direct.attempts;
    let failures = burst(&pool, 15).await;
    assert_eq!(failures.len(), 15);
    let told = |failure: &String| failure.starts_with("password authentication failed");
    assert!(failures.iter().all(told), "{failures:?}");
    // Those that were under way at first, and one each second.
    let logins = neon.counters().direct.attempts - before;
    assert!((1..=6).contains(&logins), "{logins}");
    drop(held);
    neon.clear_faults();
    assert_eq!(burst(&pool, 15).await, [""; 0]);
}

#[tokio::test]
async fn a_final_failure_does_not_keep_a_connection_in_use_from_serving_those_who_wait() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy);
    let held = timeout(HANG, pool.get()).await.unwrap().unwrap();
    neon.refuse_connections(1000, WRONG_PASSWORD);
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { burst(&pool, 5).await }
    });
    while pool.status().connects.failed == 0 {
        tokio::task::yield_now().await;
    }
    drop(held);
    assert_eq!(waiting.await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn sessions_that_were_terminated_are_never_seen() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy);
    assert_eq!(burst(&pool, 20).await, [""; 0]);
    neon.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'neondb_owner'",
    )
    .await
    .unwrap();
    assert_eq!(burst(&pool, 20).await, [""; 0]);
}

#[tokio::test]
async fn a_pool_recovers_when_slots_come_free() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy);
    neon.sql("ALTER ROLE neondb_owner CONNECTION LIMIT 0")
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { burst(&pool, 5).await }
    });
    while pool.status().connects.failed < 3 {
        tokio::task::yield_now().await;
    }
    let status = pool.status();
    let failure = status.last_failure.expect("the last failure is shown");
    assert_eq!(failure.kind(), ConnectErrorKind::TooManyConnections);
    assert!(status.last_failed.is_some());
    neon.sql("ALTER ROLE neondb_owner CONNECTION LIMIT -1")
        .await
        .unwrap();
    assert_eq!(timeout(HANG, waiting).await.unwrap().unwrap(), [""; 0]);
}

#[tokio::test]
async fn the_last_failure_is_shown_with_its_age_until_one_succeeds() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy);
    assert!(!pool.status().to_string().contains("failed"));
    neon.refuse_connections(1, "Control plane request failed: endpoint is disabled");
    timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    let before = pool.status().last_failed.unwrap();
    let pause = Duration::from_millis(20);
    tokio::time::sleep(pause).await;
    let status = pool.status();
    assert!(status.last_failed.unwrap() >= before + pause);
    let text = status.to_string();
    assert!(
        text.contains(" ago: Control plane request failed"),
        "{text}"
    );

    assert_eq!(burst(&pool, 1).await, [""; 0]);
    let status = pool.status();
    assert!(status.last_failure.is_none() && status.last_failed.is_none());
}

#[tokio::test]
async fn checkout_timeout_names_the_check_that_it_ended_in() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy
            .max_size(1)
            .checkout_timeout(Duration::from_secs(6))
            .validation_timeout(Duration::from_secs(6))
    });
    let held = pool.get_timeout(HANG).await.unwrap();
    neon.suspend(Suspension::Silent).await;
    neon.hang_connections(1000);
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    while pool.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    // The caller has less time left than the check takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(held);
    let error = timeout(HANG, waiter).await.unwrap().unwrap().unwrap_err();
    match &error {
        PoolError::Validating { waited, status } => {
            assert_eq!(*waited, Duration::from_secs(6));
            assert_eq!((status.max_size, status.in_use), (1, 0));
        }
        other => panic!("{other}"),
    }
    assert!(error.is_transient());
    assert!(error.to_string().contains("1 of 1 connections"), "{error}");
}

#[tokio::test]
async fn a_database_that_was_dropped_is_named_and_comes_back() {
    let neon = start().await;
    neon.create_database("shelf").await.unwrap();
    let url = neon.url().replace("/neondb?", "/shelf?");
    let pool = pool(&url, |policy| policy);
    assert_eq!(burst(&pool, 3).await, [""; 0]);

    neon.sql("DROP DATABASE shelf WITH (FORCE)").await.unwrap();
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    match &error {
        PoolError::Connect(error) => assert_eq!(error.kind(), ConnectErrorKind::Database),
        other => panic!("{other}"),
    }

    neon.create_database("shelf").await.unwrap();
    assert_eq!(burst(&pool, 3).await, [""; 0]);
}

#[tokio::test]
async fn cold_starts_of_any_length_are_waited_for_behind_failures() {
    let starts = [300, 3_000, 12_000].map(|millis| {
        tokio::spawn(async move {
            let neon = neon_with(|neon| {
                neon.cold_start(Duration::from_millis(millis))
                    .wake_retries(0)
            })
            .await;
            let pool = pool(&neon.pooled_url(), |policy| policy);
            neon.suspend(Suspension::Normal).await;
            neon.fail_wakes(3, "Couldn't connect to compute node");
            assert_eq!(burst(&pool, 20).await, [""; 0], "{millis} ms");
            assert_eq!(neon.counters().wakes, 1);
        })
    });
    for start in starts {
        timeout(HANG, start).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn more_callers_than_the_server_has_slots_share_them() {
    let neon = neon_with(|neon| neon.postgres_settings([("max_connections", "14")])).await;
    let pool = pool(&neon.url(), |policy| policy.max_size(30));
    assert_eq!(burst(&pool, 200).await, [""; 0]);
    assert!(pool.status().size < 14, "{:?}", pool.status());
}

#[tokio::test]
async fn a_read_only_database_is_told_by_its_class_and_keeps_its_connections() {
    let neon = start().await;
    neon.sql("ALTER DATABASE neondb SET default_transaction_read_only = on")
        .await
        .unwrap();
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let mut connection = pool.get().await.unwrap();
    let written = connection.batch_execute("CREATE TABLE t ()").await;
    assert!(matches!(
        written,
        Err(Error::DatabaseError(
            DatabaseErrorKind::ReadOnlyTransaction,
            _
        ))
    ));
    drop(connection);
    assert_eq!(burst(&pool, 3).await, [""; 0]);
    assert_eq!(pool.status().connects.opened, 1);
}

#[tokio::test]
async fn a_cold_start_is_counted() {
    let neon = neon_with(|neon| neon.cold_start(Duration::from_millis(500))).await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    burst(&pool, 1).await;
    let warm = pool.status().connects;
    // A login on a busy machine may take as long as one behind a cold start.
    assert!(warm.cold_starts == 0 || warm.slowest >= Duration::from_millis(100));
    neon.suspend(Suspension::Normal).await;
    assert_eq!(burst(&pool, 1).await, [""; 0]);
    let connects = pool.status().connects;
    assert_eq!(connects.cold_starts - warm.cold_starts, 1);
    assert_eq!(connects.opened - warm.opened, 1);
    assert!(connects.slowest >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_panic_of_the_holder_hands_nothing_on() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let holder = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut connection = pool.get().await.unwrap();
            connection.batch_execute("BEGIN").await.unwrap();
            panic!("on purpose");
        }
    });
    holder.await.unwrap_err();
    assert_eq!(pool.status().closed.in_transaction, 1);
    assert_eq!(burst(&pool, 3).await, [""; 0]);
}

#[tokio::test]
async fn slow_checkout_threshold_and_leak_detection_threshold_warn_once_with_the_place() {
    let log = Log::of_warnings();

    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        policy
            .max_size(1)
            .slow_checkout_threshold(Duration::from_millis(200))
            .leak_detection_threshold(Duration::from_millis(200))
    });
    let held = pool.get().await.unwrap();
    let place = line!() - 1;
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    let waits = line!() - 2;
    timeout(HANG, async {
        while !log.text().contains("a connection is held for long") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(held);
    waiter.await.unwrap().unwrap();

    let text = log.text();
    let warned = |what: &str, place: u32| {
        let place = format!("faults.rs:{place}:");
        let lines = text.lines();
        lines
            .filter(|line| line.contains(what) && line.contains(&place))
            .count()
    };
    assert_eq!(warned("a connection is held for long", place), 1, "{text}");
    assert_eq!(warned("a slow checkout", waits), 1, "{text}");
    assert!(!text.contains(neon.password()));
}
