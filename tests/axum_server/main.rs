//! The example `axum_server`, driven over HTTP in front of a stand-in for Neon.

mod clients;
#[path = "../common/mod.rs"]
mod common;
mod page;
mod server;

use std::sync::Arc;
use std::time::Duration;

use common::{HANG, neon_with, refusing_port};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
#[cfg(feature = "websocket")]
use neon_sim::HttpProxy;
use neon_sim::{Event, NeonSim, Suspension};
use serde_json::{Value, json};
use server::{Response, Server, command, create_tables, neon, until};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_book_lives_through_every_method() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let server = Server::start(&url, &[]).await;

        let dune = json!({ "title": "Dune", "author": "Frank Herbert", "publication_year": 1965 });
        let created = server.send("POST", "/books", Some(&dune)).await;
        assert_eq!(created.status, 201);
        let book = created.json();
        let location = created.header("location").unwrap();
        assert_eq!(location, format!("/books/{}", book["id"]));
        let mut expected = dune.clone();
        expected["id"] = book["id"].clone();
        expected["in_stock"] = true.into();
        assert_eq!(book, expected);
        assert_eq!(server.get(location).await.json(), expected);

        let changes = json!({ "author": null, "in_stock": false });
        let patched = server.send("PATCH", location, Some(&changes)).await;
        expected["author"] = Value::Null;
        expected["in_stock"] = false.into();
        assert_eq!((patched.status, patched.json()), (200, expected.clone()));
        let merge_patch = [("content-type", "application/merge-patch+json")];
        let patched = server.request("PATCH", location, &merge_patch, "{}").await;
        assert_eq!((patched.status, patched.json()), (200, expected));

        let other = json!({ "title": "Beowulf" });
        let replaced = server.send("PUT", location, Some(&other)).await;
        let expected = json!({
            "id": book["id"],
            "title": "Beowulf",
            "author": null,
            "publication_year": null,
            "in_stock": true,
        });
        assert_eq!((replaced.status, replaced.json()), (200, expected));

        let deleted = server.send("DELETE", location, None).await;
        assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
        for (method, body) in [
            ("GET", None),
            ("PUT", Some(&other)),
            ("PATCH", Some(&changes)),
            ("DELETE", None),
        ] {
            server.send(method, location, body).await.problem(404);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_under_its_key_gets_the_same_book() {
    let neon = neon().await;
    let mut first: Option<Response> = None;
    for url in [neon.url(), neon.pooled_url()] {
        let server = Server::start(&url, &[]).await;
        let post = |key: &'static str, body: Value| {
            let headers = [
                ("content-type", "application/json"),
                ("idempotency-key", key),
            ];
            let (server, body) = (&server, body.to_string());
            async move { server.request("POST", "/books", &headers, &body).await }
        };
        let dune = || json!({ "title": "Dune", "publication_year": 1965 });
        for _ in 0..2 {
            let made = post("dune", dune()).await;
            assert_eq!(made.status, 201, "{made:?}");
            let first = first.get_or_insert_with(|| made.clone());
            assert_eq!(made.json(), first.json());
            assert_eq!(made.header("location"), first.header("location"));
        }
        // The second body is the same book in other words, the third another book.
        let in_stock = json!({ "publication_year": 1965, "title": "Dune", "in_stock": true });
        assert_eq!(post("dune", in_stock).await.status, 201);
        post("dune", json!({ "title": "Emma" })).await.problem(422);
    }
    let first = first.unwrap();

    let server = Server::start(&neon.pooled_url(), &[]).await;
    assert_eq!(titles(&server.get("/books").await.json()), ["Dune"]);
    let location = first.header("location").unwrap();
    assert_eq!(server.get(location).await.json(), first.json());
    let key = "k".repeat(256);
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key.as_str()),
    ];
    let body = r#"{"title": "Emma"}"#;
    let refused = server.request("POST", "/books", &headers, body).await;
    refused.problem(400);
}

#[tokio::test]
async fn requests_under_one_key_at_once_make_one_book() {
    let neon = neon().await;
    let server = Server::start(&neon.pooled_url(), &[("POOL_SIZE", "16")]).await;
    let server = Arc::new(server);
    let requests: Vec<_> = (0..16)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let headers = [
                    ("content-type", "application/json"),
                    ("idempotency-key", "emma"),
                ];
                let body = r#"{"title": "Emma"}"#;
                server.request("POST", "/books", &headers, body).await
            })
        })
        .collect();
    for request in requests {
        let made = request.await.unwrap();
        assert_eq!(made.status, 201, "{made:?}");
    }
    assert_eq!(titles(&server.get("/books").await.json()), ["Emma"]);
}

#[tokio::test]
async fn the_list_is_filtered_sorted_and_paged() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    for (title, year) in [
        ("Dune", Some(1965)),
        ("Beowulf", None),
        ("The Hobbit", Some(1937)),
        ("100%", Some(1965)),
    ] {
        let book = json!({ "title": title, "publication_year": year, "in_stock": title != "Dune" });
        assert_eq!(server.send("POST", "/books", Some(&book)).await.status, 201);
    }

    for (query, expected) in [
        ("", &["Dune", "Beowulf", "The Hobbit", "100%"][..]),
        (
            "?sort=publication_year",
            &["The Hobbit", "Dune", "100%", "Beowulf"],
        ),
        ("?title=%25", &["100%"]),
        ("?title=the+h", &["The Hobbit"]),
        ("?in_stock=false", &["Dune"]),
        (
            "?published_from=1938&published_to=1965&in_stock=true",
            &["100%"],
        ),
        ("?author=Frank+Herbert", &[]),
        ("?author=%00", &[]),
    ] {
        let page = server.get(&format!("/books{query}")).await.json();
        assert_eq!(titles(&page), expected, "{query}");
        assert_eq!(page["next"], Value::Null);
    }

    let mut all = Vec::new();
    let mut page = server
        .get("/books?sort=publication_year&limit=1")
        .await
        .json();
    loop {
        all.extend(titles(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        page = server
            .get(&format!("/books?limit=1&after={next}"))
            .await
            .json();
    }
    assert_eq!(all, ["The Hobbit", "Dune", "100%", "Beowulf"]);
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    const JSON: &str = "application/json";
    let too_long = json!({ "title": "a".repeat(256) }).to_string();
    let too_large = json!({ "title": "a".repeat(100_000) }).to_string();

    for (method, path, content_type, body, status) in [
        ("GET", "/nothing", "", "", 404),
        ("GET", "/books/1", "", "", 404),
        ("GET", "/books/x", "", "", 400),
        ("GET", "/books/99999999999", "", "", 400),
        ("DELETE", "/books", "", "", 405),
        ("POST", "/books/1", JSON, "{}", 405),
        ("GET", "/books?limit=0", "", "", 400),
        ("GET", "/books?limit=101", "", "", 400),
        ("GET", "/books?limit=x", "", "", 400),
        ("GET", "/books?after=x", "", "", 400),
        ("GET", "/books?after=1:2&sort=id", "", "", 400),
        ("GET", "/books?sort=title", "", "", 400),
        ("GET", "/books?in_stock=maybe", "", "", 400),
        ("GET", "/books?id=1", "", "", 400),
        ("POST", "/books", JSON, "{", 400),
        ("POST", "/books", JSON, "", 400),
        ("POST", "/books", "", "{}", 415),
        ("POST", "/books", "text/plain", "{}", 415),
        ("POST", "/books", JSON, &too_large, 413),
        ("POST", "/books", JSON, "{}", 422),
        ("POST", "/books", JSON, "[]", 422),
        ("POST", "/books", JSON, r#"{"title": "Dune", "id": 1}"#, 422),
        (
            "POST",
            "/books",
            JSON,
            r#"{"title": "Dune", "publication_year": "1965"}"#,
            422,
        ),
        ("POST", "/books", JSON, r#"{"title": ""}"#, 422),
        ("POST", "/books", JSON, r#"{"title": "Du\u0000ne"}"#, 422),
        ("POST", "/books", JSON, &too_long, 422),
        (
            "PUT",
            "/books/1",
            JSON,
            r#"{"title": "Dune", "publication_year": 19650}"#,
            422,
        ),
        ("PATCH", "/books/1", JSON, r#"{"title": null}"#, 422),
        ("PATCH", "/books/1", JSON, r#"{"author": ""}"#, 422),
    ] {
        let response = server
            .request(method, path, &[("content-type", content_type)], body)
            .await;
        response.problem(status);
        if status == 405 {
            assert!(
                response
                    .header("allow")
                    .is_some_and(|allow| !allow.contains(method))
            );
        }
    }
    // Only the look-up of a missing book has taken a connection to the database.
    assert_eq!(neon.counters().direct.attempts, 1);
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    let wrong = json!({ "title": " ", "author": "a".repeat(256), "publication_year": 19650 });
    let problem = server
        .send("POST", "/books", Some(&wrong))
        .await
        .problem(422);
    let errors = json!([
        { "pointer": "#/title", "detail": "must not be blank" },
        { "pointer": "#/author", "detail": "must have at most 255 characters" },
        { "pointer": "#/publication_year", "detail": "must be between -3000 and 2100" },
    ]);
    assert_eq!(problem["errors"], errors);
}

#[tokio::test]
async fn what_the_database_says_is_logged_with_the_request_and_not_sent() {
    let neon = neon().await;
    let mut server = Server::start(&neon.url(), &[]).await;
    neon.sql("DROP TABLE books").await.unwrap();

    let id = [("x-request-id", "the-lost-table")];
    let response = server.request("GET", "/books", &id, "").await;
    assert_eq!(response.header("x-request-id"), Some("the-lost-table"));
    let problem = response.problem(500).to_string();
    assert!(
        !problem.contains("relation") && !problem.contains("exist"),
        "{problem}"
    );

    let logged = server.logged(r#"relation "books" does not exist"#).await;
    assert!(logged.contains("the-lost-table"), "{logged}");
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    let [first, second] = [server.get("/livez").await, server.get("/nowhere").await];
    assert_ne!(
        first.header("x-request-id").unwrap(),
        second.header("x-request-id").unwrap()
    );
}

#[tokio::test]
async fn without_a_database_requests_are_told_when_to_come_back() {
    let (_refusing, port) = refusing_port();
    let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let server = Server::start(&url, &[("REQUEST_TIMEOUT", "3")]).await;

    let response = server.get("/books").await;
    response.problem(503);
    assert!(
        response
            .header("retry-after")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 0
    );
    assert_eq!(server.get("/livez").await.status, 200);
    server.get("/readyz").await.problem(503);
}

#[tokio::test]
async fn a_password_that_is_wrong_is_nobodys_business() {
    let neon = neon().await;
    let url = neon.url().replace(neon.password(), "guess");
    let mut server = Server::start(&url, &[]).await;
    let problem = server.get("/books").await.problem(500);
    assert!(!problem.to_string().contains("password"), "{problem}");
    server.logged("password authentication failed").await;
}

#[tokio::test]
async fn what_passes_by_itself_is_told_apart_from_a_fault() {
    let neon = neon().await;
    let server = Server::start(&neon.url(), &[]).await;
    let dune = json!({ "title": "Dune" }).to_string();
    let post = async |key| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        server.request("POST", "/books", &headers, &dune).await
    };
    for (sqlstate, status) in [
        ("40001", 503),
        ("40P01", 503),
        ("53200", 503),
        ("22012", 500),
    ] {
        let function = format!(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \
               $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$; \
             CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON books EXECUTE FUNCTION fail()"
        );
        neon.sql(&function).await.unwrap();
        for key in ["", "a key"] {
            let response = post(key).await;
            let problem = response.problem(status);
            let is_told = response.header("retry-after").is_some();
            assert_eq!(is_told, status == 503, "{sqlstate}: {response:?}");
            assert!(!problem.to_string().contains("may have"), "{problem}");
        }
    }
}

#[tokio::test]
async fn a_login_that_fails_behind_the_first_statement_is_answered_as_any_other() {
    let neon = neon().await;
    let wrong = neon.url().replace(neon.password(), "guess");
    for pipelined in ["", "&pipeline_login=true"] {
        let server = Server::start(&format!("{wrong}{pipelined}"), &[]).await;
        let first = server.get("/books").await.problem(500);
        let second = server.get("/books").await.problem(500);
        assert_eq!(first, second);

        neon.refuse_connections(
            1,
            "endpoint is disabled. Enable it using Neon API and retry.",
        );
        let server = Server::start(&format!("{}{pipelined}", neon.url()), &[]).await;
        let refused = server.get("/books").await.problem(500);
        assert_eq!(refused, first);
        assert_eq!(server.get("/books").await.status, 200);
    }
}

#[tokio::test]
async fn an_exhausted_pool_and_a_slow_query_are_told_apart() {
    let neon = neon().await;
    let settings = [("REQUEST_TIMEOUT", "6"), ("POOL_SIZE", "1")];
    let server = Server::start(&neon.url(), &settings).await;

    let lock = Lock::take(&neon).await;
    let slow = async { server.get("/books").await };
    let waiting = async {
        lock.wanted(&neon).await;
        let response = server.get("/books").await;
        // Another instance may serve the others.
        server.get("/readyz").await.problem(503);
        response
    };
    let (slow, waiting) = tokio::join!(slow, waiting);
    slow.problem(504);
    waiting.problem(503);
    assert!(waiting.header("retry-after").is_some());

    // The query has ended with its request.
    until(async || !lock.is_wanted(&neon).await).await;
    drop(lock);
    assert_eq!(server.get("/books").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn no_request_fails_after_a_suspension() {
    no_request_fails_after(Suspension::Normal).await;
}

#[tokio::test]
async fn no_request_fails_after_a_suspension_that_resets_connections() {
    no_request_fails_after(Suspension::Reset).await;
}

#[tokio::test]
async fn no_request_fails_after_a_suspension_that_nobody_was_told_of() {
    no_request_fails_after(Suspension::Silent).await;
}

async fn no_request_fails_after(suspension: Suspension) {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let server = Server::start(&url, &[]).await;
        assert_eq!(server.get("/books").await.status, 200);
        // A connection that was used within the last half second is not checked. No compute is
        // suspended so soon, but this one is.
        sleep(Duration::from_millis(600)).await;
        neon.suspend(suspension).await;

        let dune = json!({ "title": "Dune" });
        let created = server.send("POST", "/books", Some(&dune)).await;
        assert_eq!(created.status, 201, "{}", created.body);
        let location = created.header("location").unwrap();
        assert_eq!(server.get(location).await.status, 200);
    }
    assert_eq!(neon.counters().suspensions, 2);
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn behind_a_proxy_that_is_all_there_is_no_request_fails_after_a_suspension() {
    let neon = neon().await;
    let proxy = HttpProxy::start().await.unwrap();
    let target = format!("{}:443", neon.pooled_host());
    proxy.route(&target, neon.https_port());
    let url = common::behind_a_firewall(&neon, neon.pooled_url());
    let server = Server::start(&url, &[("HTTPS_PROXY", &proxy.url())]).await;
    for title in ["Dune", "Emma", "Ulysses"] {
        let book = json!({ "title": title });
        let created = server.send("POST", "/books", Some(&book)).await;
        assert_eq!(created.status, 201, "{}", created.body);
        neon.suspend(Suspension::Normal).await;
    }
    let page = server.get("/books").await.json();
    assert_eq!(titles(&page).len(), 3, "{page}");
    let requests = proxy.requests();
    assert!(
        requests.iter().all(|request| request.target == target),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_server_starts_and_answers_probes_without_the_database() {
    let url = "postgresql://nobody:secret@127.0.0.1:1/nothing?sslmode=disable";
    let server = Server::start(url, &[]).await;
    assert_eq!(server.get("/livez").await.status, 200);
    // No request has failed yet.
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn probes_let_the_compute_fall_asleep_and_do_not_wake_it() {
    let neon = neon_with(|neon| neon.suspend_after(Duration::from_secs(1))).await;
    create_tables(&neon).await;
    let server = Server::start(&neon.url(), &[]).await;
    let mut events = neon.events();
    assert_eq!(server.get("/books").await.status, 200);

    let before = neon.counters().direct;
    let asleep = async {
        loop {
            if let Event::Suspended { .. } = events.recv().await.unwrap() {
                break;
            }
        }
    };
    let probing = async {
        loop {
            assert_eq!(server.get("/livez").await.status, 200);
            assert_eq!(server.get("/readyz").await.status, 200);
        }
    };
    let outcome = timeout(HANG, async {
        tokio::select! {
            () = asleep => {}
            () = probing => {}
        }
    });
    outcome.await.expect("the probes keep the compute awake");

    for _ in 0..20 {
        assert_eq!(server.get("/readyz").await.status, 200);
    }
    assert!(neon.is_suspended());
    let after = neon.counters().direct;
    assert_eq!(after.attempts, before.attempts);
    assert_eq!(after.statements, before.statements);
}

#[tokio::test]
async fn a_signal_lets_requests_end_and_closes_the_pool() {
    for signal in ["TERM", "INT"] {
        let neon = neon().await;
        let mut server = Server::start(&neon.url(), &[]).await;
        let lock = Lock::take(&neon).await;

        let in_flight = async { server.get("/books").await };
        let shutdown = async {
            lock.wanted(&neon).await;
            server.signal(signal).await;
            until(async || TcpStream::connect(&server.address).await.is_err()).await;
            drop(lock);
        };
        let (response, ()) = tokio::join!(in_flight, shutdown);
        assert_eq!(response.status, 200);

        let exit = timeout(HANG, server.process.wait())
            .await
            .expect("the server stays");
        assert!(exit.unwrap().success());
        assert_eq!(neon.counters().direct.connections, 1);
        // The stand-in may read the bytes after the server has gone.
        until(async || neon.counters().direct.terminates == 1).await;
    }
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_is_an_error() {
    let neon = neon().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    for setting in [
        ("PORT", &*taken),
        ("PORT", "http"),
        ("HOST", "localhost"),
        ("REQUEST_TIMEOUT", "-1"),
        ("REQUEST_TIMEOUT", "0"),
        ("REQUEST_TIMEOUT", "18446744073709551615"),
        ("POOL_SIZE", "0"),
        ("MAX_CONNECTIONS", "0"),
    ] {
        let mut command = command(&neon.url(), &[setting]);
        let output = timeout(HANG, command.output())
            .await
            .expect("it runs")
            .unwrap();
        assert!(!output.status.success(), "{setting:?}");
        assert!(output.stdout.is_empty(), "{setting:?}");
        // The message is a sentence, not Rust's Debug of the value.
        let said = String::from_utf8(output.stderr).unwrap();
        let sentence = said.strip_prefix("Error: ").expect(&said);
        assert!(!sentence.contains(['"', '{']), "{said}");
        let named = ["PORT", "HOST", "MAX_CONNECTIONS"].contains(&setting.0);
        assert!(!named || sentence.contains(setting.0), "{said}");
    }
}

fn titles(page: &Value) -> Vec<&str> {
    let books = page["books"].as_array().unwrap().iter();
    books.map(|book| book["title"].as_str().unwrap()).collect()
}

/// A lock on the table of books; dropping it unlocks.
struct Lock(#[expect(dead_code, reason = "held for what dropping it does")] AsyncPgConnection);

impl Lock {
    async fn take(neon: &NeonSim) -> Self {
        let mut conn = AsyncPgConnection::establish(&neon.postgres_url())
            .await
            .unwrap();
        conn.batch_execute("BEGIN; LOCK TABLE books IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        Self(conn)
    }

    /// Waits until another session waits for the lock.
    async fn wanted(&self, neon: &NeonSim) {
        until(async || self.is_wanted(neon).await).await;
    }

    async fn is_wanted(&self, neon: &NeonSim) -> bool {
        let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'books'::regclass";
        !neon.sql(waiting).await.unwrap().is_empty()
    }
}
