//! Faults of requests over HTTPS, from a scripted server: no answer costs a panic, a hang or much memory, and each error says
//! whether the statement may have run.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;
#[path = "http/scripted.rs"]
mod scripted;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::scripted::listen;
use common::{HANG, neon, over_https, refusing_port};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Integer, Text};
use diesel_async::RunQueryDsl;
use diesel_neon::http::HttpConnection;
use diesel_neon::{DatabaseErrorExt, Policy};
use futures_util::future::join_all;
use scripted::{Reply, SEVEN, answer, ok, read, serve, url};
use tokio::sync::watch;
use tokio::time::timeout;

async fn seven(mut connection: &HttpConnection) -> Result<i32, Error> {
    let select = diesel::select(7.into_sql::<Integer>());
    let answer = select.get_result::<i32>(&mut connection);
    timeout(HANG, answer).await.expect("no hang")
}

#[tokio::test]
async fn malformed_and_hostile_answers_are_errors() {
    let row = |row: &str| format!(r#"{{"fields":[],"rows":[{row}],"rowCount":1}}"#);
    let deep = format!(r#"{{"fields":{}"#, "[".repeat(200_000));
    let long_header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let cut = answer("200 OK", SEVEN.as_bytes());
    let too_long = answer("200 OK", &vec![b' '; 200_000]);
    let endless = [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        &b"FFF\r\n"[..],
    ]
    .concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("cut off in the head", b"HTTP/1.1 20".to_vec()),
        ("cut off in the body", cut[..cut.len() - 9].to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a long header", long_header.into_bytes()),
        ("more than it may be", too_long),
        ("a chunk that does not end", endless),
        ("a page", answer("200 OK", b"<html>")),
        ("nothing in JSON", answer("200 OK", b"")),
        ("another JSON", answer("200 OK", b"[1,2]")),
        ("not UTF-8", answer("200 OK", b"{\"rows\":[[\"\xff\"]]}")),
        ("deep", answer("200 OK", deep.as_bytes())),
        (
            "no rows",
            answer("200 OK", br#"{"fields":[],"rowCount":1}"#),
        ),
        ("an empty row", answer("200 OK", row("[]").as_bytes())),
        ("NULL for a row", answer("200 OK", row("[null]").as_bytes())),
        (
            "a row that lies",
            answer("200 OK", row(r#"["AAAAAQAAABd/////AAAABw=="]"#).as_bytes()),
        ),
        ("502", answer("502 Bad Gateway", b"<html>")),
        ("404", answer("404 Not Found", b"<html>")),
        ("a redirect", answer("302 Found", b"")),
        ("413", answer("413 Payload Too Large", b"{}")),
        ("507", answer("507 Insufficient Storage", b"{}")),
        (
            "an error of another form",
            answer("400 Bad Request", b"{\"message\":{}}"),
        ),
    ];
    for (case, bytes) in cases {
        let reply = bytes.clone();
        let (url, seen) = serve(move |_| Reply::Last(reply.clone())).await;
        let connection = HttpConnection::builder(url)
            .max_response_size(100_000)
            .build()
            .unwrap();
        let error = seven(&connection).await.unwrap_err();
        let text = error.to_string();
        let (may, not) = (text.contains("may have run"), text.contains("not run"));
        assert!(may != not, "{case}: {text}");
        assert_eq!(not, error.is_undelivered(), "{case}: {text}");
        // What may have run is not sent again.
        assert_eq!(read(&seen.requests), 1, "{case}: {text}");
        for (name, limit) in [
            ("413", "10 MiB"),
            ("507", "10 MiB"),
            ("more than it may be", "100000 bytes"),
        ] {
            assert!(case != name || text.contains(limit), "{case}: {text}");
        }
    }
}

/// Answers that differ from a right one in a few bytes: each gives a row or an error.
#[tokio::test]
async fn no_change_of_an_answer_makes_it_panic() {
    fastrand::seed(11);
    let (url, seen) = serve(move |_| {
        let mut body = SEVEN.as_bytes().to_vec();
        for _ in 0..fastrand::usize(1..4) {
            let at = fastrand::usize(..body.len());
            match fastrand::u8(..3) {
                0 => body[at] = fastrand::u8(..),
                1 => drop(body.remove(at)),
                _ => body.truncate(at),
            }
            if body.is_empty() {
                break;
            }
        }
        Reply::Bytes(answer("200 OK", &body))
    })
    .await;
    let connection = HttpConnection::new(url).unwrap();
    let mut errors = 0;
    for _ in 0..2000 {
        errors += usize::from(seven(&connection).await.is_err());
    }
    assert!((1..2000).contains(&errors), "{errors}");
    assert_eq!(read(&seen.requests), 2000);
}

#[tokio::test]
async fn a_connection_that_ended_while_it_was_idle_is_replaced() {
    let (url, seen) = serve(|_| Reply::Last(answer("200 OK", SEVEN.as_bytes()))).await;
    let connection = HttpConnection::new(url).unwrap();
    for number in 1..=20 {
        assert_eq!(seven(&connection).await, Ok(7));
        // Its end has time to arrive.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(read(&seen.requests), number);
    }
    assert_eq!(read(&seen.connections), 20);
}

#[tokio::test]
async fn without_http_2_a_few_connections_take_turns() {
    let (url, seen) = serve(|_| ok(SEVEN)).await;
    let connection = HttpConnection::new(url).unwrap();
    let all = join_all((0..200).map(|_| seven(&connection))).await;
    assert!(all.iter().all(|answer| *answer == Ok(7)), "{all:?}");
    let (connections, most) = (&seen.connections, &seen.most_at_once);
    let (connections, most) = (read(connections), read(most));
    assert!(
        (2..=6).contains(&connections) && most > 1,
        "{connections} {most}"
    );
}

#[tokio::test]
async fn what_was_not_run_is_sent_again_and_nothing_else() {
    let proxy = |message: &str| {
        let body = format!(r#"{{"message":"{message}","code":""}}"#);
        Reply::Bytes(answer("500 Internal Server Error", body.as_bytes()))
    };
    let (url, seen) = serve(move |number| match number {
        0 => proxy("Couldn't connect to compute node"),
        1 => proxy("Too many connections attempts"),
        2 => Reply::Bytes(answer(
            "400 Bad Request",
            br#"{"message":"starting","code":"57P03"}"#,
        )),
        _ => ok(SEVEN),
    })
    .await;
    assert_eq!(seven(&HttpConnection::new(url).unwrap()).await, Ok(7));
    assert_eq!(read(&seen.requests), 4);

    let (url, seen) = serve(move |_| proxy("connection closed")).await;
    let error = seven(&HttpConnection::new(url).unwrap()).await.unwrap_err();
    assert!(
        error.is_connection_lost() && !error.is_undelivered(),
        "{error}"
    );
    assert_eq!(read(&seen.requests), 1);
}

#[tokio::test]
async fn without_a_server_nothing_was_run() {
    let (_refusing, port) = refusing_port();
    let policy = Policy::builder().connect_timeout(Duration::from_millis(500));
    let connection = HttpConnection::builder(url(port))
        .policy(policy)
        .build()
        .unwrap();
    // All of them wait for the same connects.
    let all = join_all((0..50).map(|_| seven(&connection))).await;
    for error in all {
        let error = error.unwrap_err();
        assert!(error.is_undelivered() && error.is_transient(), "{error}");
        assert!(
            error.to_string().contains("cannot connect to 127.0.0.1"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_requests_time() {
    let (url, _) = serve(|_| Reply::Hang).await;
    // Connects are within it, on a busy machine too.
    let limit = Duration::from_secs(5);
    let connection = HttpConnection::builder(url)
        .request_timeout(limit)
        .build()
        .unwrap();
    let error = seven(&connection).await.unwrap_err();
    assert!(
        error.is_response_timeout() && !error.is_undelivered(),
        "{error}"
    );
    assert_eq!(error.sqlstate(), Some("08007"));

    // One that takes connections and makes no TLS handshake: nothing was sent.
    let port = listen(|_stream| std::future::pending()).await;
    let url = format!("postgresql://u:p@127.0.0.1/d?https_port={port}&sslmode=require");
    let connection = HttpConnection::builder(url)
        .request_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = seven(&connection).await.unwrap_err();
    assert!(error.is_undelivered(), "{error}");

    let neon = neon().await;
    let connection = HttpConnection::builder(over_https(&neon, neon.url()))
        .request_timeout(limit)
        .build()
        .unwrap();
    neon.hang_connections(1);
    let error = seven(&connection).await.unwrap_err();
    assert!(error.is_response_timeout(), "{error}");
    assert_eq!(seven(&connection).await, Ok(7));
}

#[derive(diesel::query_builder::QueryId, diesel::sql_types::SqlType)]
#[diesel(postgres_type(name = "mood", schema = "own"))]
struct Mood;

/// The look-up of a type and the statement: neither is answered in time, and the time begins with the look-up. A statement
/// that begins between the two is late behind both.
#[tokio::test]
async fn the_time_of_a_request_counts_for_all_of_a_statement() {
    let mood = r#"{"fields":[],"rows":[["90000","90001","own.mood","e","0","0",null,"enum_recv","1"]],"rowCount":1}"#;
    let (release, released) = watch::channel(false);
    let (url, seen) = serve(move |number| match number {
        0 => Reply::Held(released.clone(), answer("200 OK", mood.as_bytes())),
        _ => Reply::Hang,
    })
    .await;
    let connection = HttpConnection::builder(url)
        .request_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let order = Arc::<Mutex<Vec<&str>>>::default();
    let (first, told, shared) = (order.clone(), order.clone(), connection.clone());
    let looked_up = tokio::spawn(async move {
        let select = diesel::sql_query("SELECT 7").bind::<Mood, _>(AsIs("sad"));
        let late = select.execute(&mut &shared).await;
        first.lock().unwrap().push("the first");
        late
    });
    let until_sent = async |requests| {
        while read(&seen.requests) < requests {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Between the ends of the two.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    timeout(HANG, until_sent(1)).await.expect("no hang");
    let second = tokio::spawn(async move {
        let late = seven(&connection).await;
        told.lock().unwrap().push("the second");
        late
    });
    timeout(HANG, until_sent(2)).await.expect("no hang");
    release.send_replace(true);
    let both = async { (looked_up.await.unwrap(), second.await.unwrap()) };
    let (first, second) = timeout(HANG, both).await.expect("no hang");
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.is_response_timeout(), "{error:?}");
    }
    assert_eq!(*order.lock().unwrap(), ["the first", "the second"]);
    assert_eq!(read(&seen.requests), 3);
}

#[derive(Debug)]
struct AsIs(&'static str);

impl diesel::serialize::ToSql<Mood, diesel::pg::Pg> for AsIs {
    fn to_sql<'b>(
        &'b self,
        out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>,
    ) -> diesel::serialize::Result {
        std::io::Write::write_all(out, self.0.as_bytes())?;
        Ok(diesel::serialize::IsNull::No)
    }
}

/// A function's instance that was frozen: the server has closed the connection, and nothing has looked at it since.
#[test]
fn a_connection_that_ended_while_its_runtime_rested_is_replaced() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    let (url, seen) = servers.block_on(serve(|_| Reply::Last(answer("200 OK", SEVEN.as_bytes()))));
    let connection = HttpConnection::new(url).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    for number in 1..=4 {
        assert_eq!(runtime.block_on(seven(&connection)), Ok(7));
        while read(&seen.ended) < number {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Long enough not to be taken for one that is in use.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(read(&seen.requests), number);
    }
}

/// The limits of Neon's proxy, as the stand-in has them.
#[tokio::test]
async fn what_is_too_large_names_the_limit() {
    let neon = neon().await;
    let connection = HttpConnection::new(over_https(&neon, neon.url())).unwrap();
    let mut shared = &connection;
    let large = "x".repeat(11 << 20);
    let select = diesel::select(large.into_sql::<Text>()).execute(&mut shared);
    let error = timeout(HANG, select).await.expect("no hang").unwrap_err();
    assert!(
        error.is_undelivered() && error.to_string().contains("10 MiB"),
        "{error}"
    );
    let rows = diesel::sql_query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    let error = timeout(HANG, rows.execute(&mut shared))
        .await
        .expect("no hang")
        .unwrap_err();
    assert!(
        !error.is_undelivered() && error.to_string().contains("10 MiB"),
        "{error}"
    );
    assert_eq!(error.sqlstate(), Some("54000"));
}
