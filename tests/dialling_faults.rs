//! Addresses and hosts that fail or hang beside others, and servers that speak something else.

#[path = "common/addresses.rs"]
mod addresses;
mod common;

use std::time::{Duration, Instant};

use diesel_async::AsyncConnection;
use diesel_neon::{ConnectError, ConnectErrorKind, Connection, DatabaseUrl, PoolError};
use neon_sim::NeonSim;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use addresses::{Addresses, Behaviour::*, brisk};
use common::scripted::{error, greeting, listen, message, startup, tag};
use common::{HANG, neon, pool};

fn postgres(neon: &NeonSim) -> u16 {
    DatabaseUrl::parse(&neon.postgres_url()).unwrap().hosts()[0].port
}

/// Returns a URL in which each address is a host of its own.
fn hosts(addresses: &Addresses, neon: &NeonSim) -> String {
    let url = addresses.url(&neon.postgres_url(), "");
    let names = format!("&host={}", addresses.hosts(""));
    url.replace(&names, "")
}

/// Starts a server that takes a login, and says nothing behind AuthenticationOk.
async fn hangs_after_authentication() -> u16 {
    listen(async |mut stream: TcpStream| {
        let _ = startup(&mut stream).await;
        let ok = message(tag::AUTHENTICATION, &[0; 4]);
        let _ = stream.write_all(&ok).await;
        sleep(HANG).await;
    })
    .await
}

async fn establish(url: &str) -> Result<(), String> {
    let established = timeout(HANG, Connection::establish(url)).await.unwrap();
    established.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn hosts_that_refuse_do_not_keep_the_next_host_from_being_tried() {
    let neon = neon().await;
    let starting = Starting("FATAL");
    let addresses = Addresses::new(&[starting, starting, starting, LeadsTo(postgres(&neon))]).await;
    establish(&hosts(&addresses, &neon)).await.unwrap();
    assert_eq!(addresses.accepted(), [1, 1, 1, 1]);

    let full = listen(async |mut stream: TcpStream| {
        let _ = startup(&mut stream).await;
        let refusal = error("FATAL", "53300", "sorry, too many clients already");
        let _ = stream.write_all(&refusal).await;
    })
    .await;
    let addresses = Addresses::new(&[LeadsTo(full), LeadsTo(postgres(&neon))]).await;
    establish(&hosts(&addresses, &neon)).await.unwrap();
    assert_eq!(addresses.accepted(), [1, 1]);
}

#[tokio::test]
async fn a_host_that_hangs_behind_its_password_does_not_keep_the_next_from_being_tried() {
    let neon = neon().await;
    let hanging = LeadsTo(hangs_after_authentication().await);
    let addresses = Addresses::new(&[hanging, LeadsTo(postgres(&neon))]).await;
    establish(&hosts(&addresses, &neon)).await.unwrap();
    assert_eq!(addresses.accepted(), [1, 1]);
}

#[tokio::test]
async fn what_failed_is_tried_again_beside_an_address_that_hangs() {
    let neon = neon().await;
    let postgres = postgres(&neon);
    for is_listening in [true, false] {
        let began = Instant::now();
        let restarting = listen(move |mut stream: TcpStream| async move {
            if began.elapsed() > Duration::from_secs(3) {
                let mut server = TcpStream::connect(("127.0.0.1", postgres)).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            } else if is_listening {
                let _ = startup(&mut stream).await;
                let refusal = error("FATAL", "57P03", "the database system is starting up");
                let _ = stream.write_all(&refusal).await;
            }
        })
        .await;
        let addresses = Addresses::new(&[Silent, LeadsTo(restarting), LeadsTo(restarting)]).await;
        establish(&addresses.url(&neon.postgres_url(), "localhost"))
            .await
            .unwrap();
    }

    // What was spared after two refusals is tried then, too.
    let starting = Starting("FATAL");
    let addresses = [Silent, starting, starting, starting, LeadsTo(postgres)];
    let addresses = Addresses::new(&addresses).await;
    establish(&addresses.url(&neon.postgres_url(), "localhost"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_time_out_tells_what_the_other_addresses_said() {
    let neon = neon().await;
    for (other, says) in [
        (Starting("FATAL"), "the database system is starting up"),
        (Refuses, "Connection refused"),
    ] {
        let addresses = Addresses::new(&[Silent, other]).await;
        for url in [
            addresses.url(&neon.postgres_url(), "localhost"),
            hosts(&addresses, &neon),
        ] {
            let error = establish(&format!("{url}&connect_timeout=3")).await;
            let error = error.unwrap_err();
            assert!(error.starts_with("no connection within 3s"), "{error}");
            assert!(error.contains(says), "{error}");

            let seconds = Duration::from_secs;
            let pool = pool(&url, |policy| {
                policy
                    .connect_timeout(seconds(3))
                    .checkout_timeout(seconds(6))
            });
            let connected = timeout(HANG, pool.get()).await.unwrap();
            let error = format!("{:?}", connected.map(drop).unwrap_err());
            assert!(error.contains("no connection within 3s"), "{error}");
            assert!(error.contains(says), "{error}");
        }
    }
}

#[tokio::test]
async fn an_address_that_hangs_delays_one_connect_and_no_other() {
    let neon = neon().await;
    for hangs in [
        listen(async |_stream: TcpStream| sleep(HANG).await).await,
        hangs_after_authentication().await,
    ] {
        // One second is for the address that hangs; another, and the next is as silent.
        brisk(Duration::from_secs(2), &[1, 3], async || {
            let addresses = Addresses::new(&[LeadsTo(hangs), LeadsTo(postgres(&neon))]).await;
            let url = addresses.url(&neon.postgres_url(), "localhost");
            let pool = pool(&url, |policy| policy);
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(timeout(HANG, pool.get()).await.unwrap().unwrap());
            }
            addresses.accepted()
        })
        .await;
    }
}

fn refusal(connected: Result<(), PoolError>) -> ConnectError {
    match connected {
        Err(PoolError::Connect(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Returns the error of a login that is answered with `answer`.
async fn answered(answer: Vec<u8>) -> ConnectError {
    let port = listen(move |mut stream: TcpStream| {
        let answer = answer.clone();
        async move {
            let _ = startup(&mut stream).await;
            let _ = stream.write_all(&answer).await;
            // Unread bytes would turn the end of the stream into a reset.
            let _ = stream.read(&mut [0; 1024]).await;
        }
    })
    .await;
    let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
    refusal(
        timeout(HANG, pool(&url, |p| p).get())
            .await
            .unwrap()
            .map(drop),
    )
}

#[tokio::test]
async fn what_is_not_postgres_is_told_as_that() {
    let notice = message(
        tag::NOTICE_RESPONSE,
        b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0",
    );
    let mut endless = greeting();
    endless.truncate(endless.len() - 6);
    endless.extend(message(tag::PARAMETER_STATUS, b"a\0b\0").repeat(200_000));
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(),
        b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0".to_vec(),
        [notice, greeting()].concat(),
        message(tag::AUTHENTICATION, &99_i32.to_be_bytes()),
        vec![tag::AUTHENTICATION, 0, 0, 0, 1, 0],
        vec![tag::AUTHENTICATION, 0x7f, 0xff, 0xff, 0xff, 0],
        error("FATAL", "XX000", &"x".repeat(2 << 20)),
        endless,
    ] {
        let error = answered(answer).await;
        assert_eq!(error.diagnosis().code(), "not-postgres", "{error}");
        assert_eq!(error.kind(), ConnectErrorKind::Unreachable, "{error}");
    }
}

#[tokio::test]
async fn a_method_of_authentication_that_nobody_knows_is_not_called_a_wrong_password() {
    for method in [2, 7, 9] {
        let method: i32 = method;
        let error = answered(message(tag::AUTHENTICATION, &method.to_be_bytes())).await;
        assert_eq!(error.diagnosis().code(), "method-unknown", "{error}");
        assert_eq!(error.kind(), ConnectErrorKind::Authentication);
    }
    let sasl = [&10_i32.to_be_bytes()[..], b"OAUTHBEARER\0\0"].concat();
    let error = answered(message(tag::AUTHENTICATION, &sasl)).await;
    assert_eq!(error.diagnosis().code(), "method-unknown", "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_reads_as_that() {
    let greeting = greeting();
    for cut in 1..greeting.len() {
        let greeting = greeting[..cut].to_vec();
        let port = listen(move |mut stream: TcpStream| {
            let greeting = greeting.clone();
            async move {
                let _ = startup(&mut stream).await;
                let _ = stream.write_all(&greeting).await;
            }
        })
        .await;
        let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
        let error = establish(&url).await.unwrap_err();
        assert_eq!(error, "the server closed the connection", "{cut}");
    }
}
