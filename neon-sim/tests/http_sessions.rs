//! The sessions and transactions behind `POST /sql`. Each test quotes the fact about Neon's proxy that it holds.

mod common;

use std::time::Duration;

use common::http::Sql;
use common::websocket::{Tls, https};
use common::{bounded, eventually};
use hyper::Method;
use neon_sim::{Event, NeonSim, Suspension};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

async fn start() -> NeonSim {
    let builder = NeonSim::builder().never_suspend();
    let builder = builder.cold_start(Duration::from_millis(50));
    bounded(builder.start()).await.unwrap()
}

/// "Batch `{"results":[…]}`, one transaction; a failing statement, or a deferred constraint at COMMIT, is a 400 and nothing is
/// kept. SAVEPOINT and SET LOCAL work in it."
#[tokio::test]
async fn a_batch_is_one_transaction() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let batch = async |sql: &Sql, statements: &[&str]| {
        let queries: Vec<_> = statements
            .iter()
            .map(|query| json!({ "query": query }))
            .collect();
        sql.ask(&json!({ "queries": queries })).await
    };
    let table = "CREATE TABLE t (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    sql.query(table).await;
    let (status, answer) = batch(
        &sql,
        &[
            "INSERT INTO t VALUES (1)",
            "SAVEPOINT s",
            "INSERT INTO t VALUES (2)",
            "ROLLBACK TO s",
            "SET LOCAL work_mem = '1MB'",
            "SELECT current_setting('work_mem') AS w, count(*)::int AS n FROM t",
        ],
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[0]["rowCount"]), (6, &json!(1)));
    assert_eq!(results[5]["rows"], json!([{ "w": "1MB", "n": 1 }]));

    let (status, answer) = batch(&sql, &["INSERT INTO t VALUES (3)", "SELECT 1/0"]).await;
    assert_eq!((status, &answer["code"]), (400, &json!("22012")));
    let (status, answer) = batch(
        &sql,
        &["INSERT INTO t VALUES (4)", "INSERT INTO t VALUES (1)"],
    )
    .await;
    assert_eq!((status, &answer["code"]), (400, &json!("23505")));
    assert_eq!(sql.rows("SELECT id FROM t").await, json!([{ "id": 1 }]));
    assert_eq!(batch(&sql, &[]).await.1, json!({ "results": [] }));
}

/// "`Neon-Batch-Isolation-Level` (`Serializable|ReadUncommitted|ReadCommitted|RepeatableRead`, else 400 `invalid isolation
/// level`), `Neon-Batch-Read-Only`, `Neon-Batch-Deferrable`."
#[tokio::test]
async fn headers_say_what_kind_of_transaction_a_batch_is() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let settings = "SELECT current_setting('transaction_isolation') AS i, \
        current_setting('transaction_read_only') AS r, \
        current_setting('transaction_deferrable') AS d";
    let batch = json!({ "queries": [{ "query": settings }] });
    let level = "neon-batch-isolation-level";
    for (name, shown) in [
        ("Serializable", "serializable"),
        ("ReadUncommitted", "read uncommitted"),
        ("ReadCommitted", "read committed"),
        ("RepeatableRead", "repeatable read"),
    ] {
        let (_, answer) = sql.with(level, name).ask(&batch).await;
        let expected = json!([{ "i": shown, "r": "off", "d": "off" }]);
        assert_eq!(answer["results"][0]["rows"], expected);
    }
    let sql = sql
        .with(level, "Serializable")
        .with("neon-batch-read-only", "true");
    let sql = sql.with("neon-batch-deferrable", "true");
    let expected = json!([{ "i": "serializable", "r": "on", "d": "on" }]);
    assert_eq!(sql.ask(&batch).await.1["results"][0]["rows"], expected);
    let (status, answer) = sql.with(level, "serializable").ask(&batch).await;
    assert_eq!(
        (status, &answer["message"]),
        (400, &json!("invalid isolation level"))
    );
}

/// "Request over 10 MiB: 413; response: 507 (checked before each row: one row of 20 MB passed)."
#[tokio::test]
async fn requests_and_answers_are_limited() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let of_size = |size: usize| {
        let around = json!({ "query": "SELECT length($1) AS n", "params": [""] }).to_string();
        let text = "x".repeat(size - around.len());
        json!({ "query": "SELECT length($1) AS n", "params": [text] }).to_string()
    };
    let limit = 10 * 1024 * 1024;
    assert_eq!(sql.send(Method::POST, "/sql", of_size(limit)).await.0, 200);
    let (status, told) = sql.send(Method::POST, "/sql", of_size(limit + 1)).await;
    assert_eq!(status, 413);
    assert!(
        told.contains("request is too large (max is 10485760 bytes)"),
        "{told}"
    );

    let rows = sql.rows("SELECT repeat('x', 20000000) AS v").await;
    assert_eq!(rows[0]["v"].as_str().unwrap().len(), 20_000_000);
    let two = "SELECT repeat('x', 11000000) AS v FROM generate_series(1, 2)";
    let (status, answer) = sql.query(two).await;
    assert_eq!(status, 507);
    assert_eq!(
        answer["message"],
        "response is too large (max is 10485760 bytes)"
    );
}

/// "The session is reset between requests: SET, temporary tables, PREPARE, BEGIN do not reach the next one."
#[tokio::test]
async fn nothing_of_a_request_is_left_for_the_next() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let sql = Sql::connect(&neon)
            .await
            .with("neon-connection-string", url);
        let left = "SELECT current_setting('work_mem') AS w, \
            (SELECT count(*)::int FROM pg_class WHERE relname = 't') AS t, \
            (SELECT count(*)::int FROM pg_prepared_statements WHERE from_sql) AS p, \
            (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory') AS l";
        let expected = json!([{ "w": "4MB", "t": 0, "p": 0, "l": 0 }]);
        for statement in [
            "SET work_mem = '1MB'",
            "CREATE TEMP TABLE t ()",
            "PREPARE p AS SELECT 1",
            "SELECT pg_advisory_lock(1)",
            "BEGIN",
        ] {
            assert_eq!(sql.query(statement).await.0, 200, "{statement}");
            assert_eq!(sql.rows(left).await, expected, "{statement}");
        }
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        eventually("no transaction is open", async || {
            neon.sql(open).await.unwrap()[0][0].as_deref() == Some("0")
        })
        .await;
    }
}

/// "Dropping the request cancels the statement, batches too."
#[tokio::test]
async fn a_request_that_is_dropped_is_cancelled() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    sql.query("CREATE TABLE t ()").await;
    let sleep = json!({ "query": "SELECT pg_sleep(600)" });
    let insert = json!({ "query": "INSERT INTO t DEFAULT VALUES" });
    let pooled = sql.with("neon-connection-string", neon.pooled_url());
    for sql in [&sql, &pooled] {
        for body in [sleep.clone(), json!({ "queries": [insert, sleep] })] {
            let asking = {
                let sql = sql.clone();
                tokio::spawn(async move { sql.ask(&body).await })
            };
            running(&neon, "1").await;
            asking.abort();
            running(&neon, "0").await;
        }
    }
    assert_eq!(
        sql.rows("SELECT count(*)::int AS n FROM t").await,
        json!([{ "n": 0 }])
    );
    // With HTTP/1.1, by closing the connection.
    let stream = ask(&neon, &sleep).await;
    running(&neon, "1").await;
    drop(stream);
    running(&neon, "0").await;
}

/// Sends a request over HTTP/1.1, and leaves its answer unread.
async fn ask(neon: &NeonSim, body: &Value) -> Tls {
    let mut stream = https(neon, &["http/1.1"]).await;
    let (host, url, body) = (neon.host(), neon.url(), body.to_string());
    let request = format!(
        "POST /sql HTTP/1.1\r\nHost: {host}\r\nNeon-Connection-String: {url}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

async fn running(neon: &NeonSim, expected: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
        WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    eventually("the statement's state", async || {
        neon.sql(sql).await.unwrap()[0][0].as_deref() == Some(expected)
    })
    .await;
}

/// "A suspended compute just holds the connection while it wakes"; a statement that a suspension ends has the server's own words.
#[tokio::test]
async fn requests_wake_the_compute_and_suspensions_end_them() {
    let neon = start().await;
    let (sql, driver) = Sql::connect_with_driver(&neon).await;
    sql.rows("SELECT 1").await;
    neon.suspend(Suspension::Normal).await;
    sql.rows("SELECT 1").await;
    assert_eq!(neon.counters().wakes, 1);
    let sleeping = |sql: &Sql| {
        let sql = sql.clone();
        tokio::spawn(async move { sql.query("SELECT pg_sleep(600)").await })
    };
    let asked = sleeping(&sql);
    running(&neon, "1").await;
    neon.suspend(Suspension::Normal).await;
    let (status, answer) = bounded(asked).await.unwrap();
    assert_eq!((status, &answer["code"]), (400, &json!("57P01")));

    neon.wake().await;
    let asked = sleeping(&sql);
    running(&neon, "1").await;
    neon.suspend(Suspension::Silent).await;
    let silence = tokio::time::timeout(Duration::from_millis(300), asked).await;
    assert!(silence.is_err(), "nothing should answer");
    sql.rows("SELECT 1").await;

    sleeping(&sql);
    running(&neon, "1").await;
    neon.suspend(Suspension::Reset).await;
    // However it ends, it has ended.
    let _ = bounded(driver).await.unwrap();
}

/// Of the stand-in's own: what has begun to wake goes on.
#[tokio::test]
async fn a_compute_wakes_though_the_client_that_woke_it_leaves() {
    let builder = NeonSim::builder().never_suspend();
    let builder = builder.cold_start(Duration::from_millis(500));
    let neon = bounded(builder.start()).await.unwrap();
    neon.suspend(Suspension::Normal).await;
    let mut events = neon.events();
    let client = ask(&neon, &json!({ "query": "SELECT 1" })).await;
    assert_eq!(bounded(events.recv()).await.unwrap(), Event::Waking);
    drop(client);
    let woken = bounded(events.recv()).await.unwrap();
    assert!(matches!(woken, Event::Woken { .. }), "{woken:?}");
    assert_eq!(neon.counters().wakes, 1);
}

/// "Wake-up: 500", and a final error is none of the server's.
#[tokio::test]
async fn a_wake_up_that_fails_is_the_servers_fault_if_it_may_pass() {
    let builder = NeonSim::builder().never_suspend().wake_retries(0);
    let neon = bounded(builder.start()).await.unwrap();
    let sql = Sql::connect(&neon).await;
    neon.suspend(Suspension::Normal).await;
    for (message, status) in [
        ("Control plane request failed", 500),
        ("Control plane request failed: endpoint is disabled", 400),
    ] {
        neon.fail_wakes(1, message);
        let (told, answer) = sql.query("SELECT 1").await;
        assert_eq!((told, &answer["message"]), (status, &json!(message)));
    }
    neon.clear_faults();
    sql.rows("SELECT 1").await;
}

/// "JWT instead of a password: only on `apiauth.` hosts (`Authorization: Bearer …`)."
#[tokio::test]
async fn a_token_is_taken_where_tokens_are_taken() {
    let builder = NeonSim::builder().never_suspend().accept_token("a.b.c");
    let neon = bounded(builder.start()).await.unwrap();
    let without_password = format!("postgresql://neondb_owner@{}/neondb", neon.host());
    let sql = Sql::connect(&neon).await;
    let with_password = sql.clone();
    let mut sql = sql.with("neon-connection-string", without_password);
    sql.host = "apiauth.neon.localhost".into();
    let right = sql.with("authorization", "Bearer a.b.c");
    assert_eq!(right.rows("SELECT 1 AS n").await, json!([{ "n": 1 }]));
    assert_eq!(
        sql.with("authorization", "Bearer x.y.z")
            .query("SELECT 1")
            .await
            .0,
        400
    );
    let missing =
        "missing authentication credentials: required authorization bearer token in JWT format";
    let mut elsewhere = with_password.clone();
    elsewhere.host = sql.host.clone();
    for sql in [&sql, &elsewhere] {
        let (status, answer) = sql.query("SELECT 1").await;
        assert_eq!((status, &answer["message"]), (400, &json!(missing)));
    }
    let (status, answer) = with_password
        .with("authorization", "Bearer a.b.c")
        .query("SELECT 1")
        .await;
    let missing = "missing authentication credentials: required password";
    assert_eq!((status, &answer["message"]), (400, &json!(missing)));
}
