//! Servers with several addresses, some of which do not work.

#[path = "common/addresses.rs"]
mod addresses;
mod common;

use std::time::Duration;

use bb8::ManageConnection;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use diesel_neon::{
    ConnectErrorKind, Connection, ConnectionManager, DatabaseUrl, Policy, PoolError,
};
use neon_sim::Suspension;
use tokio::time::timeout;

use addresses::Behaviour::{self, *};
use addresses::{Addresses, brisk};
use common::{HANG, neon, neon_with, pool, until};

/// Counts the sessions of clients.
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'";

/// After how long the next address is tried beside one that does not answer, and beside one that says nothing to a login.
const STAGGER: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_secs(1);

/// Returns twelve addresses of which one works; `order` permutes them.
async fn dozen(port: u16, order: impl FnOnce(&mut Vec<Behaviour>)) -> Addresses {
    let mut behaviours = [[Drops; 4], [Silent; 4]].concat();
    behaviours.extend([Refuses, Refuses, Refuses, LeadsTo(port)]);
    order(&mut behaviours);
    Addresses::new(&behaviours).await
}

async fn process(connection: &mut Connection) -> i32 {
    let process = diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>(
        "pg_backend_pid()",
    ));
    diesel_async::RunQueryDsl::get_result(process, connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_one_address_of_a_dozen_that_works_is_found_in_any_order() {
    let neon = neon().await;
    let mut orders = vec![
        dozen(neon.port(), |_| {}).await,
        dozen(neon.port(), |all| all.reverse()).await,
        dozen(neon.port(), |all| all.rotate_left(4)).await,
        dozen(neon.port(), |all| all.rotate_left(8)).await,
    ];
    for seed in 0..4 {
        let shuffle = |all: &mut Vec<_>| fastrand::Rng::with_seed(seed).shuffle(all);
        orders.push(dozen(neon.port(), shuffle).await);
    }
    for addresses in orders {
        for url in [neon.url(), format!("{}&sslnegotiation=direct", neon.url())] {
            let before = neon.counters();
            let pool = pool(&addresses.url(&url, &neon.host()), |policy| policy);
            let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
            connection.batch_execute("SELECT 1").await.unwrap();
            drop(connection);
            assert_eq!(pool.status().connects.failed, 0);
            pool.close(HANG).await.unwrap();
            let counted = (neon.counters() - before).direct;
            assert_eq!((counted.attempts, counted.connections), (1, 1));
        }
        assert_eq!(addresses.accepted().iter().sum::<usize>(), 2);
        until(&neon, SESSIONS, "0").await;
    }
}

#[tokio::test]
async fn what_one_address_says_is_not_held_against_the_next() {
    let neon = neon().await;
    let postgres = DatabaseUrl::parse(&neon.postgres_url()).unwrap().hosts()[0].port;
    for severity in ["FATAL", "ERROR"] {
        brisk(SILENCE, &[1, 1], async || {
            let addresses = Addresses::new(&[Starting(severity), LeadsTo(postgres)]).await;
            let url = addresses.url(&neon.postgres_url(), "localhost");
            let pool = pool(&url, |policy| policy.validation_bypass(HANG));
            let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
            let first = process(&mut connection).await;
            drop(connection);
            for _ in 0..10 {
                let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
                assert_eq!(process(&mut connection).await, first, "{severity}");
            }
            let status = pool.status();
            assert_eq!(status.checks.passed + status.checks.failed, 0, "{severity}");
            addresses.accepted()
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_refuses_is_not_asked_at_every_address() {
    let neon = neon().await;
    let postgres = DatabaseUrl::parse(&neon.postgres_url()).unwrap().hosts()[0].port;
    brisk(STAGGER, &[1, 0, 0, 0, 0, 0], async || {
        let addresses = Addresses::new(&[LeadsTo(postgres); 6]).await;
        let url = addresses.url(&neon.postgres_url(), "localhost");
        let error = Connection::establish(&url.replace(neon.password(), "wrong")).await;
        let error = error.err().unwrap().to_string();
        assert!(error.contains("password authentication failed"), "{error}");
        addresses.accepted()
    })
    .await;

    for (message, logins) in [
        ("Couldn't connect to compute node", [1, 1, 0, 0, 0, 0]),
        ("Too many connections attempts", [1, 0, 0, 0, 0, 0]),
    ] {
        brisk(STAGGER, &logins, async || {
            let addresses = Addresses::new(&[LeadsTo(neon.port()); 6]).await;
            neon.refuse_connections(6, message);
            let error = Connection::establish(&addresses.url(&neon.url(), &neon.host())).await;
            assert!(error.err().unwrap().to_string().starts_with(message));
            neon.clear_faults();
            addresses.accepted()
        })
        .await;
    }

    brisk(STAGGER, &[1, 1, 0, 0, 0, 0], async || {
        let addresses = Addresses::new(&[Starting("FATAL"); 6]).await;
        let error = Connection::establish(&addresses.url(&neon.postgres_url(), "localhost")).await;
        assert!(error.err().unwrap().to_string().contains("is starting up"));
        addresses.accepted()
    })
    .await;
}

#[tokio::test]
async fn addresses_that_refused_last_time_are_tried_last() {
    let neon = neon().await;
    let postgres = DatabaseUrl::parse(&neon.postgres_url()).unwrap().hosts()[0].port;
    for severity in ["FATAL", "ERROR"] {
        let starting = Starting(severity);
        // What the first attempts have found out holds for every connection behind them.
        brisk(SILENCE, &[1, 1, 1, 3], async || {
            let addresses = [starting, starting, starting, LeadsTo(postgres)];
            let addresses = Addresses::new(&addresses).await;
            let url = addresses.url(&neon.postgres_url(), "localhost");
            let pool = pool(&url, |policy| policy.max_size(3));
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(timeout(HANG, pool.get()).await.unwrap().unwrap());
            }
            addresses.accepted()
        })
        .await;
    }
}

#[tokio::test]
async fn a_login_that_outlasts_a_cold_start_is_made_once_more_and_the_loser_says_goodbye() {
    let cold_start = Duration::from_secs(8);
    let neon = neon_with(|neon| neon.cold_start(cold_start)).await;
    brisk(cold_start + STAGGER, &[1, 1, 0, 0, 0, 0], async || {
        neon.suspend(Suspension::Normal).await;
        let addresses = Addresses::new(&[LeadsTo(neon.port()); 6]).await;
        let before = neon.counters();
        let pool = pool(&addresses.url(&neon.url(), &neon.host()), |p| p);
        let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
        until(&neon, SESSIONS, "1").await;
        let counted = (neon.counters() - before).direct;
        assert_eq!(counted.terminates + 1, counted.connections);
        addresses.accepted()
    })
    .await;
}

#[tokio::test]
async fn a_cold_start_is_waited_for_at_one_address() {
    let cold_start = Duration::from_secs(3);
    let neon = neon_with(|neon| neon.cold_start(cold_start)).await;
    brisk(cold_start + STAGGER, &[1, 0, 0], async || {
        neon.suspend(Suspension::Normal).await;
        let addresses = Addresses::new(&[LeadsTo(neon.port()); 3]).await;
        let pool = pool(&addresses.url(&neon.url(), &neon.host()), |p| p);
        drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
        addresses.accepted()
    })
    .await;
}

#[tokio::test]
async fn hosts_are_tried_in_their_order_unless_they_are_to_be_balanced() {
    let neon = neon().await;
    let postgres = DatabaseUrl::parse(&neon.postgres_url()).unwrap().hosts()[0].port;
    for (balance, name) in [
        ("disable", "localhost"),
        ("random", "localhost"),
        ("random", ""),
    ] {
        let accepted = async || {
            let addresses = Addresses::new(&[LeadsTo(postgres); 4]).await;
            let url = match name {
                // Each address is a host name of its own here, so that they count as different servers.
                "" => addresses
                    .url(&neon.postgres_url(), "")
                    .replace("&host=,,,", ""),
                name => addresses.url(&neon.postgres_url(), name),
            };
            let url = format!("{url}&load_balance_hosts={balance}");
            for _ in 0..32 {
                let connected = timeout(HANG, Connection::establish(&url)).await;
                drop(connected.unwrap().unwrap());
            }
            addresses.accepted()
        };
        if balance == "disable" {
            brisk(STAGGER, &[32, 0, 0, 0], accepted).await;
        } else {
            let accepted = accepted().await;
            assert!(accepted.iter().all(|n| *n > 0), "{name}: {accepted:?}");
        }
    }
}

#[tokio::test]
async fn the_certificate_is_checked_against_the_name_at_every_address() {
    let neon = neon().await;
    let addresses = Addresses::new(&[LeadsTo(neon.port()); 2]).await;
    // The certificate is for the name, not for the address.
    timeout(
        HANG,
        pool(&addresses.url(&neon.url(), &neon.host()), |p| p).get(),
    )
    .await
    .unwrap()
    .unwrap();
    let url = addresses.url(&neon.url(), "elsewhere.example");
    match timeout(HANG, pool(&url, |p| p).get()).await.unwrap() {
        Err(PoolError::Connect(error)) => {
            assert_eq!(error.kind(), ConnectErrorKind::Tls);
            assert!(error.reason().contains("not valid for name"), "{error:?}");
        }
        other => panic!("{:?}", other.map(|_| "a connection")),
    }
}

#[tokio::test]
async fn a_stream_that_just_ends_reads_as_that() {
    let neon = neon().await;
    // The stream ends before TLS, in the middle of its handshake, and behind it.
    for bytes in (0..).step_by(125) {
        let addresses = Addresses::new(&[Ends(neon.port(), bytes)]).await;
        let url = addresses.url(&neon.url(), &neon.host());
        let Err(error) = timeout(HANG, Connection::establish(&url)).await.unwrap() else {
            assert!(bytes > 1000, "{bytes}");
            break;
        };
        let error = error.to_string();
        assert!(error.contains("closed the connection"), "{bytes}: {error}");
        assert!(!error.contains("http"), "{bytes}: {error}");
    }
    let addresses = Addresses::new(&[Ends(neon.port(), 20_000)]).await;
    let url = addresses.url(&neon.url(), &neon.host());
    let mut connection = timeout(HANG, Connection::establish(&url))
        .await
        .unwrap()
        .unwrap();
    let rows = connection.batch_execute("SELECT repeat('x', 1000) FROM generate_series(1, 100)");
    let error = timeout(HANG, rows).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the server closed the connection");
}

#[tokio::test]
async fn a_single_connection_keeps_the_urls_connect_timeout() {
    let addresses = Addresses::new(&[Silent]).await;
    let url = format!(
        "postgresql://u:p@127.0.0.1:{}/db?sslmode=disable&connect_timeout=1",
        addresses.port
    );
    let error = timeout(HANG / 4, Connection::establish(&url))
        .await
        .expect("no hang");
    assert!(
        error
            .err()
            .unwrap()
            .to_string()
            .starts_with("no connection within 1s")
    );

    // The runtime has no timers.
    let blocked = tokio::task::spawn_blocking(move || {
        type Blocking = diesel_async::async_connection_wrapper::AsyncConnectionWrapper<Connection>;
        <Blocking as diesel::Connection>::establish(&url)
            .err()
            .unwrap()
            .to_string()
    });
    let error = timeout(HANG / 4, blocked).await.expect("no hang").unwrap();
    assert!(error.contains("no connection within 1s"), "{error}");
}

#[tokio::test]
async fn a_timeout_beyond_all_measure_is_none() {
    let neon = neon().await;
    let url = DatabaseUrl::parse(&neon.postgres_url()).unwrap();
    let policy = Policy::builder()
        .connect_timeout(Duration::MAX)
        .checkout_timeout(Duration::MAX)
        .build()
        .unwrap();
    let manager = ConnectionManager::<Connection>::new(&url, policy).unwrap();
    timeout(HANG, manager.connect()).await.unwrap().unwrap();
}
