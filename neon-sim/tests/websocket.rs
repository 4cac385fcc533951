//! PostgreSQL's protocol in a WebSocket. Each test quotes the fact about Neon's proxy that it holds.

mod common;

use std::time::Duration;

use common::raw::{self, End, errors, message, own_error, tag, until_closed};
use common::websocket::{
    AWAY, CLEARTEXT, ask, binary, connect, frame, head, https, log_in, opcode, open, owner,
    password, query, read_frame, request, until_ready,
};
use common::{bounded, eventually};
use neon_sim::NeonSim;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::error::SqlState;

async fn start() -> NeonSim {
    let builder = NeonSim::builder().never_suspend();
    let builder = builder.cold_start(Duration::from_millis(50));
    bounded(builder.start()).await.unwrap()
}

/// "Routed by the `Host` header, any path. Binary frames carry the Postgres protocol, no inner TLS (an inner SSLRequest
/// answers `N`), always a cleartext password, never SCRAM".
#[tokio::test]
async fn the_host_header_names_the_endpoint_and_the_password_is_asked_for_as_it_is() {
    let neon = start().await;
    let with_port = format!("{}:{}", neon.pooled_host(), neon.https_port());
    for (host, path) in [(neon.host(), "/v2"), (with_port, "/anything?at=all")] {
        let mut client = https(&neon, &[]).await;
        client.write_all(&request(&host, path)).await.unwrap();
        assert_eq!(head(&mut client).await.0, 101);
        let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];
        assert_eq!(ask(&mut client, &ssl_request).await, [tag::NOT_ENCRYPTED]);
        assert_eq!(ask(&mut client, &owner()).await, CLEARTEXT);
        client.write_all(&binary(&password(&neon))).await.unwrap();
        until_ready(&mut client).await;
    }
    let counters = neon.counters();
    assert_eq!(
        (counters.direct.connections, counters.pooled.connections),
        (1, 1)
    );
}

/// "Postgres over WebSocket": what a client does in a session it does here too, behind the pooler as well.
#[tokio::test]
async fn a_session_is_as_it_is_over_tcp() {
    let neon = start().await;
    for host in [neon.host(), neon.pooled_host()] {
        let (client, _driver) = connect(&neon, &host).await;
        let statement = client.prepare("SELECT $1::int + 1").await.unwrap();
        for number in [1, 41] {
            let row = client.query_one(&statement, &[&number]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), number + 1);
        }
        let long = "SELECT string_agg(i::text, ',') FROM generate_series(1, 200000) i";
        let row = client.query_one(long, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0).split(',').count(), 200_000);
        let echoed = "x".repeat(3_000_000);
        let row = client
            .query_one("SELECT $1::text", &[&echoed])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), echoed);
    }
}

/// "Frames from the proxy are about 1 KiB (2 MB of rows = 1,954 frames)."
#[tokio::test]
async fn frames_have_1024_bytes() {
    let neon = start().await;
    let mut client = open(&neon, &neon.host()).await;
    client
        .write_all(&binary(&[owner(), password(&neon)].concat()))
        .await
        .unwrap();
    until_ready(&mut client).await;
    let rows = query("SELECT repeat('x', 1000) FROM generate_series(1, 2000)");
    client.write_all(&binary(&rows)).await.unwrap();
    let (mut frames, mut bytes, mut end) = (0, 0, Vec::new());
    while !end.ends_with(b"Z\0\0\0\x05I") {
        let frame = bounded(read_frame(&mut client)).await.unwrap();
        assert!(frame.is_final && frame.payload.len() <= 1024);
        frames += 1;
        bytes += frame.payload.len();
        end = frame.payload;
    }
    assert!(bytes > 2_000_000, "{bytes}");
    // Some are not full, as the server's own writes end between them.
    assert!((1950..2200).contains(&frames), "{frames}");
}

/// "WebSocket step by step / startup and password at once / and the query: 5 / 4 / 3. WebSocket, startup, password and query
/// sent behind the upgrade request, without waiting for its answer: 2".
#[tokio::test]
async fn the_first_row_takes_two_flights_if_nothing_is_waited_for() {
    let neon = start().await;
    let upgrade = request(&neon.host(), "/v2");
    let [startup, password, query] =
        [owner(), password(&neon), query("SELECT 1")].map(|bytes| binary(&bytes));
    let step_by_step = [&upgrade, &startup, &password, &query];
    for (at_once, flights) in [
        (&[1, 1, 1, 1][..], 5),
        (&[1, 2, 1], 4),
        (&[1, 3], 3),
        (&[4], 2),
    ] {
        let before = neon.counters();
        let mut client = https(&neon, &["http/1.1"]).await;
        let mut steps = step_by_step.iter();
        let mut sent = 0;
        for together in at_once {
            let bytes: Vec<u8> = steps
                .by_ref()
                .take(*together)
                .flat_map(|step| step.to_vec())
                .collect();
            client.write_all(&bytes).await.unwrap();
            client.flush().await.unwrap();
            let first = sent == 0;
            sent += together;
            if first {
                assert_eq!(head(&mut client).await.0, 101);
            }
            // Whatever answers the last of them, the client waits for.
            let until: &[u8] = match sent {
                1 => continue,
                2 => &CLEARTEXT,
                3 => b"Z\0\0\0\x05I",
                _ => b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
            };
            let mut said = Vec::new();
            while !said.ends_with(until) {
                said.extend(bounded(read_frame(&mut client)).await.unwrap().payload);
            }
        }
        let direct = (neon.counters() - before).direct;
        let counted = direct.handshake_flights + direct.flights;
        assert_eq!(counted, flights, "{at_once:?}: {direct:?}");
        assert_eq!((direct.connections, direct.statements), (1, 1));
    }
}

/// "Failed authentication: ErrorResponse, then close 1006": the stream ends without a close frame.
/// "A password message over 512 bytes: `Internal error`."
#[tokio::test]
async fn a_refused_client_gets_no_close_frame() {
    let neon = start().await;
    let wrong = "password authentication failed for user 'neondb_owner'";
    for (said, text) in [
        ("wrong\0".to_owned(), wrong),
        ("x".repeat(513), "Internal error"),
    ] {
        let mut client = open(&neon, &neon.host()).await;
        assert_eq!(ask(&mut client, &owner()).await, CLEARTEXT);
        let refused = ask(&mut client, &message(tag::PASSWORD, said.as_bytes())).await;
        assert_eq!(errors(&refused), [own_error(text)]);
        assert_eq!(until_closed(&mut client).await, (vec![], End::BareFin));
    }
    assert_eq!(neon.counters().direct.attempts, 2);
}

/// "Otherwise the proxy asks for a cleartext password and expects `endpoint=<id>;<password>`", for a Host header of another
/// domain too.
#[tokio::test]
async fn a_host_of_another_domain_names_no_endpoint() {
    let neon = start().await;
    let mut client = open(&neon, "ep-quiet-lake-123456.elsewhere.test").await;
    assert_eq!(ask(&mut client, &owner()).await, CLEARTEXT);
    let password = format!("endpoint=ep-quiet-lake-123456;{}\0", neon.password());
    let password = message(tag::PASSWORD, password.as_bytes());
    client.write_all(&binary(&password)).await.unwrap();
    until_ready(&mut client).await;
}

/// "A pong is only flushed with the next outgoing data, so a ping keepalive times out on an idle connection."
#[tokio::test]
async fn a_pong_waits_for_data() {
    let neon = start().await;
    let mut client = log_in(&neon, &neon.host()).await;
    client
        .write_all(&frame(opcode::PING, true, b"?"))
        .await
        .unwrap();
    let idle = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
    assert!(idle.is_err(), "nothing should answer");
    client.write_all(&binary(&query("SELECT 1"))).await.unwrap();
    let pong = bounded(read_frame(&mut client)).await.unwrap();
    assert_eq!((pong.opcode, &pong.payload[..]), (opcode::PONG, &b"?"[..]));
    until_ready(&mut client).await;
}

/// A message in fragments is one message, with a ping between them; a client's close frame is answered and ends the session.
#[tokio::test]
async fn fragments_and_close_frames_are_understood() {
    let neon = start().await;
    let mut client = open(&neon, &neon.host()).await;
    let login = [owner(), password(&neon)].concat();
    for (index, byte) in login.iter().enumerate() {
        let opcode = match index {
            0 => opcode::BINARY,
            _ => opcode::CONTINUATION,
        };
        let fragment = frame(opcode, index + 1 == login.len(), &[*byte]);
        client.write_all(&fragment).await.unwrap();
    }
    until_ready(&mut client).await;
    client
        .write_all(&frame(opcode::CLOSE, true, &AWAY))
        .await
        .unwrap();
    let close = bounded(read_frame(&mut client)).await.unwrap();
    assert_eq!(
        (close.opcode, &close.payload[..]),
        (opcode::CLOSE, &AWAY[..])
    );
    until_closed(&mut client).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'";
    eventually("the session ends", async || {
        neon.sql(sessions).await.unwrap()[0][0].as_deref() == Some("0")
    })
    .await;
}

/// "Cancel works." "The proxy closes that socket at once and cancels afterwards."
#[tokio::test]
async fn a_cancel_request_in_a_websocket_ends_the_statement() {
    let neon = start().await;
    for host in [neon.host(), neon.pooled_host()] {
        let (client, _driver) = connect(&neon, &host).await;
        let request = raw::cancel_request(&client).await;
        let cancelling = async {
            running(&neon, "1").await;
            let mut socket = open(&neon, &host).await;
            socket.write_all(&binary(&request)).await.unwrap();
            assert_eq!(until_closed(&mut socket).await, (vec![], End::BareFin));
        };
        let sleep = bounded(client.batch_execute("SELECT pg_sleep(600)"));
        let (slept, ()) = tokio::join!(sleep, cancelling);
        assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        client.simple_query("SELECT 1").await.unwrap();
    }
    let counters = neon.counters();
    assert_eq!((counters.direct.cancels, counters.pooled.cancels), (1, 1));
}

/// "Closing the client connection in mid-statement cancels it on the direct endpoint".
#[tokio::test]
async fn a_client_that_leaves_cancels_its_statement() {
    let neon = start().await;
    let (client, driver) = connect(&neon, &neon.host()).await;
    let sleep = tokio::spawn(async move {
        let _ = client.batch_execute("SELECT pg_sleep(600)").await;
    });
    running(&neon, "1").await;
    driver.abort();
    bounded(sleep).await.unwrap();
    running(&neon, "0").await;
}

async fn running(neon: &NeonSim, expected: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
        WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    eventually("the statement's state", async || {
        neon.sql(sql).await.unwrap()[0][0].as_deref() == Some(expected)
    })
    .await;
}
