//! Clients that are slow, many, or wrong.

use std::time::Duration;

use neon_sim::NeonSim;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::common::HANG;
use crate::server::{Response, Server, command, neon};

const JSON: (&str, &str) = ("content-type", "application/json");
const HALF_A_HEAD: &[u8] = b"GET /books HTTP/1.1\r\nhost: local";

#[tokio::test]
async fn clients_that_send_half_a_head_do_not_take_the_server_down() {
    let neon = neon().await;
    let server = command(&neon.url(), &[("REQUEST_TIMEOUT", "10")]);
    // Some systems allow so few open files.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 256 && exec \"$0\""])
        .arg(server.as_std().get_program())
        .current_dir(std::env::temp_dir())
        .env_clear()
        .envs(
            server
                .as_std()
                .get_envs()
                .filter_map(|(k, v)| Some((k, v?))),
        );
    let server = Server::spawn(limited).await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(HALF_A_HEAD).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(server.get("/books").await.status, 200);
    for stream in slow {
        assert_eq!(read_to_end(stream).await, "");
    }
}

#[tokio::test]
async fn a_connection_that_is_one_too_many_waits_for_another_to_end() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[("MAX_CONNECTIONS", "1")]).await;
    let mut first = TcpStream::connect(&server.address).await.unwrap();
    let get = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    first.write_all(get).await.unwrap();
    assert!(first.read(&mut [0; 1024]).await.unwrap() > 0);

    let mut second = TcpStream::connect(&server.address).await.unwrap();
    second.write_all(get).await.unwrap();
    let answer = timeout(Duration::from_millis(300), second.readable()).await;
    assert!(answer.is_err(), "it is served beside the first");
    drop(first);
    let answer = timeout(HANG, second.read(&mut [0; 1024])).await;
    assert!(answer.expect("it is served after the first").unwrap() > 0);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_not_served_for_ever() {
    let neon = neon().await;
    let settings = [("MAX_CONNECTIONS", "1"), ("REQUEST_TIMEOUT", "1")];
    let server = Server::start(&neon.url(), &settings).await;
    let mut deaf = TcpStream::connect(&server.address).await.unwrap();
    let gets = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    // The client writes until neither side can send any more.
    while timeout(Duration::from_millis(500), deaf.write_all(&gets))
        .await
        .is_ok_and(|sent| sent.is_ok())
    {}
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[("REQUEST_TIMEOUT", "1")]).await;
    for (method, path) in [
        ("POST", "/books"),
        ("PUT", "/books/1"),
        ("PATCH", "/books/1"),
    ] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        let half = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{{\"title\":"
        );
        stream.write_all(half.as_bytes()).await.unwrap();
        // The server closes a connection on which it can read no further request.
        let response = Response::parse(&read_to_end(stream).await);
        assert_eq!(response.header("connection"), Some("close"));
        response.problem(408);
    }
    assert_eq!(neon.counters().direct.attempts, 0);
}

#[tokio::test]
async fn what_does_not_fit_is_told_without_the_names_of_types() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    let types = [
        "i32",
        "u8",
        "u32",
        "struct",
        "NewBook",
        "BookChanges",
        "ListParams",
        "target type",
    ];
    for (method, path, body, status, told) in [
        (
            "POST",
            "/books",
            r#"["x", null]"#,
            422,
            "sequence, expected an object",
        ),
        (
            "PUT",
            "/books/1",
            r#"["x", null, null, true]"#,
            422,
            "expected an object",
        ),
        (
            "PATCH",
            "/books/1",
            r#"["x", null]"#,
            422,
            "expected an object",
        ),
        ("POST", "/books", r#""Dune""#, 422, "expected an object"),
        ("POST", "/books", "{", 400, "EOF while parsing"),
        (
            "POST",
            "/books",
            r#"{"title": "Dune", "id": 1}"#,
            422,
            "unknown field `id`",
        ),
        (
            "POST",
            "/books",
            r#"{"title": "Dune", "title": "Emma"}"#,
            422,
            "duplicate field `title`",
        ),
        (
            "POST",
            "/books",
            r#"{"title": "Dune", "publication_year": "1965"}"#,
            422,
            "publication_year: invalid type: string \"1965\", expected a year as a whole number",
        ),
        (
            "PATCH",
            "/books/1",
            r#"{"publication_year": 99999999999}"#,
            422,
            "expected a year as a whole number",
        ),
        (
            "PATCH",
            "/books/1",
            r#"{"title": null}"#,
            422,
            "title: invalid type: null, expected a string",
        ),
        ("GET", "/books/x", "", 400, "`x` is no id."),
        (
            "GET",
            "/books/99999999999",
            "",
            400,
            "`99999999999` is no id.",
        ),
        (
            "GET",
            "/books?limit=x",
            "",
            400,
            "limit: a page holds 1 to 100 books",
        ),
        (
            "GET",
            "/books?limit=-1",
            "",
            400,
            "limit: a page holds 1 to 100 books",
        ),
        (
            "GET",
            "/books?published_to=x",
            "",
            400,
            "published_to: a year is a whole number",
        ),
        (
            "GET",
            "/books?published_from=9999999999",
            "",
            400,
            "published_from: a year is",
        ),
        (
            "GET",
            "/books?sort=title",
            "",
            400,
            "expected `id` or `publication_year`",
        ),
        (
            "GET",
            "/books?limit=1&limit=2",
            "",
            400,
            "duplicate field `limit`",
        ),
    ] {
        let response = server.request(method, path, &[JSON], body).await;
        let detail = response.problem(status)["detail"].to_string();
        let detail = detail.replace("\\\"", "\"");
        assert!(detail.contains(told), "{method} {path} {body}: {detail}");
        for name in types {
            assert!(!detail.contains(name), "{method} {path} {body}: {detail}");
        }
    }
    assert_eq!(neon.counters().direct.attempts, 0);
}

#[tokio::test]
async fn two_idempotency_keys_are_one_too_many() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    for second in ["a", "b"] {
        let keys = [JSON, ("idempotency-key", "a"), ("idempotency-key", second)];
        let body = r#"{"title": "Dune"}"#;
        let response = server.request("POST", "/books", &keys, body).await;
        response.problem(400);
    }
    assert_eq!(server.get("/books").await.json()["books"], json!([]));
}

#[tokio::test]
async fn options_are_answered() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    for (path, allowed) in [
        ("/books", "GET,HEAD,POST,OPTIONS"),
        ("/books/1", "GET,HEAD,PUT,PATCH,DELETE,OPTIONS"),
        ("/readyz", "GET,HEAD,OPTIONS"),
    ] {
        let response = server.request("OPTIONS", path, &[], "").await;
        assert_eq!((response.status, response.body.as_str()), (204, ""));
        let sorted = |methods: &str| {
            let mut methods: Vec<_> = methods.split(',').map(str::to_owned).collect();
            methods.sort();
            methods
        };
        assert_eq!(sorted(response.header("allow").unwrap()), sorted(allowed));
    }
    let response = server.request("OPTIONS", "/nowhere", &[], "").await;
    response.problem(404);
}

#[tokio::test]
async fn a_request_that_is_repeated_draws_no_id() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let server = Server::start(&url, &[]).await;
        let post = async |key: &str, title: &str| {
            let headers = [JSON, ("idempotency-key", key)];
            let body = json!({ "title": title }).to_string();
            server.request("POST", "/books", &headers, &body).await
        };
        // The other endpoint has made both books by now.
        for _ in 0..5 {
            assert_eq!(post("first", "Dune").await.json()["id"], 1);
            post("first", "Emma").await.problem(422);
        }
        assert_eq!(post("second", "Emma").await.json()["id"], 2);
        assert_eq!(last_id(&neon).await, "2");
    }
}

async fn last_id(neon: &NeonSim) -> String {
    let rows = neon.sql("SELECT last_value FROM books_id_seq").await;
    rows.unwrap()[0][0].clone().unwrap()
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(HANG, stream.read_to_end(&mut answer)).await;
    // The server may also reset a connection whose input it has not read.
    let _ = read.expect("the server ends the connection");
    String::from_utf8(answer).unwrap()
}
