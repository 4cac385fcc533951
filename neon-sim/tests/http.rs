//! One-shot SQL by `POST /sql`. Each test quotes the fact about Neon's proxy that it holds.

mod common;

use common::bounded;
use common::http::Sql;
use common::websocket::{head, https};
use hyper::Method;
use neon_sim::NeonSim;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> NeonSim {
    bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap()
}

/// "Result `{fields:[{name,dataTypeID,tableID,columnID,dataTypeSize,dataTypeModifier,format:"text"}],rows,command,rowCount,
/// rowAsArray}`".
#[tokio::test]
async fn a_result_has_its_fields_rows_and_command() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let (status, answer) = sql.query("SELECT 1 AS one, 'x'::varchar(3) AS two").await;
    assert_eq!(status, 200);
    let field = |name: &str, id: u32, size: i16, modifier: i32| {
        json!({
            "name": name, "dataTypeID": id, "tableID": 0, "columnID": 0, "dataTypeSize": size,
            "dataTypeModifier": modifier, "format": "text",
        })
    };
    let expected = json!({
        "fields": [field("one", 23, 4, -1), field("two", 1043, -1, 7)],
        "rows": [{ "one": 1, "two": "x" }],
        "command": "SELECT", "rowCount": 1, "rowAsArray": false,
    });
    assert_eq!(answer, expected);
    let (_, answer) = sql
        .with("neon-array-mode", "true")
        .query("SELECT 1, 2")
        .await;
    assert_eq!(
        (&answer["rows"], &answer["rowAsArray"]),
        (&json!([[1, 2]]), &json!(true))
    );
    let asked = json!({ "query": "SELECT 1, 2", "arrayMode": true });
    assert_eq!(sql.ask(&asked).await.1["rows"], json!([[1, 2]]));
}

/// "VACUUM, DDL, EXPLAIN, SHOW: 200. Empty query: 200. COPY: 400." "One statement a query (two: 42601)". "Another method: 400
/// `query is not supported`."
#[tokio::test]
async fn whatever_is_one_statement_runs_but_copy() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    for (statement, command, count) in [
        ("CREATE TABLE t (id int PRIMARY KEY)", "CREATE", Value::Null),
        (
            "INSERT INTO t SELECT generate_series(1, 3)",
            "INSERT",
            json!(3),
        ),
        ("UPDATE t SET id = id + 10 WHERE id > 1", "UPDATE", json!(2)),
        (
            "DELETE FROM t WHERE id = 1 RETURNING id",
            "DELETE",
            json!(1),
        ),
        ("VACUUM t", "VACUUM", Value::Null),
        ("EXPLAIN SELECT 1", "EXPLAIN", Value::Null),
        ("SHOW work_mem", "SHOW", Value::Null),
        ("", "", Value::Null),
    ] {
        let (status, answer) = sql.query(statement).await;
        assert_eq!(status, 200, "{statement}: {answer}");
        let told = (&answer["command"], &answer["rowCount"]);
        assert_eq!(told, (&json!(command), &count), "{statement}");
    }
    assert_eq!(sql.query("COPY t TO STDOUT").await.0, 400);
    assert_eq!(sql.query("COPY t FROM STDIN").await.0, 400);
    let (status, answer) = sql.query("SELECT 1; SELECT 2").await;
    assert_eq!((status, &answer["code"]), (400, &json!("42601")));
    for (method, path) in [(Method::GET, "/sql"), (Method::POST, "/")] {
        let answer = sql.send(method, path, "").await;
        assert_eq!(answer, (400, "\"query is not supported\"".into()));
    }
}

/// "HTTP/1.1 or 2". "`POST /sql`, new / kept connection: 2 / 1" flights.
#[tokio::test]
async fn a_statement_takes_one_flight_on_a_kept_connection() {
    let neon = start().await;
    let body = json!({ "query": "SELECT 1" }).to_string();
    let request = format!(
        "POST /sql HTTP/1.1\r\nHost: {}\r\nNeon-Connection-String: {}\r\nContent-Length: {}\r\n\r\n{body}",
        neon.host(),
        neon.url(),
        body.len()
    );
    let mut stream = https(&neon, &["http/1.1"]).await;
    for flights in [2, 3, 4] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let (status, head) = head(&mut stream).await;
        assert_eq!(status, 200);
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut answer = vec![0; length.unwrap().parse().unwrap()];
        bounded(stream.read_exact(&mut answer)).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["rowCount"], 1);
        assert_eq!(neon.counters().direct.flights, flights);
    }
    let direct = neon.counters().direct;
    assert_eq!(
        (direct.https_connections, direct.requests, direct.statements),
        (1, 3, 3)
    );
    assert_eq!((direct.attempts, direct.handshake_flights), (0, 0));

    let before = neon.counters();
    let sql = Sql::connect(&neon).await;
    sql.rows("SELECT 1").await;
    let direct = (neon.counters() - before).direct;
    assert_eq!(direct.flights, 2);
    let before = neon.counters();
    sql.rows("SELECT 1").await;
    assert_eq!((neon.counters() - before).direct.flights, 1);
    // Those that are sent together take one flight.
    let before = neon.counters();
    tokio::join!(
        sql.rows("SELECT pg_sleep(0.1)"),
        sql.rows("SELECT pg_sleep(0.1)")
    );
    assert_eq!((neon.counters() - before).direct.flights, 1);
}

/// "20 in parallel on one h2 connection work".
#[tokio::test]
async fn many_statements_share_a_connection() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let asking: Vec<_> = (0..200)
        .map(|number| {
            let sql = sql.clone();
            tokio::spawn(async move { sql.rows(&format!("SELECT {number} AS n")).await })
        })
        .collect();
    for (number, answer) in asking.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), json!([{ "n": number }]));
    }
    let direct = neon.counters().direct;
    assert_eq!((direct.https_connections, direct.requests), (1, 200));
}

/// "The endpoint is taken from the connection string's host, not from Host or SNI; `api.<region>` and `-pooler` hosts work. Of
/// its parameters nothing reaches the session."
#[tokio::test]
async fn the_connection_string_names_the_endpoint() {
    let neon = start().await;
    let mut sql = Sql::connect(&neon).await;
    for host in [
        "api.neon.localhost".to_owned(),
        neon.pooled_host(),
        neon.host(),
    ] {
        sql.host = host;
        sql.rows("SELECT 1").await;
    }
    assert_eq!(neon.counters().direct.requests, 3);
    let pooled = sql.with("neon-connection-string", neon.pooled_url());
    pooled.rows("SELECT 1").await;
    assert_eq!(neon.counters().pooled.requests, 1);
    let parameters = format!(
        "{}&application_name=me&options=-c%20work_mem%3D1MB",
        neon.url()
    );
    let sql = sql.with("neon-connection-string", parameters);
    let shown = "SELECT current_setting('application_name') AS a, current_setting('work_mem') AS w";
    assert_eq!(sql.rows(shown).await, json!([{ "a": "", "w": "4MB" }]));

    let (user, host) = ("neondb_owner", neon.host());
    for (string, message) in [
        (
            format!("mysql://{user}:x@{host}/neondb"),
            "incorrect scheme",
        ),
        (
            format!("postgres://{user}:x@{host}/"),
            "missing database name",
        ),
        (format!("postgres://{host}/neondb"), "missing username"),
        (
            format!("postgres://{user}@{host}/neondb"),
            "missing authentication credentials: required password",
        ),
        (
            format!("postgres://{user}:x@localhost/neondb"),
            "malformed endpoint",
        ),
    ] {
        let (status, answer) = sql.with("neon-connection-string", string).query("").await;
        let told = (status, &answer["message"], &answer["code"]);
        assert_eq!(told, (400, &json!(message), &json!("")));
    }
    let mut without = sql.clone();
    without.headers.clear();
    let (status, answer) = without.query("SELECT 1").await;
    assert_eq!(status, 400);
    assert_eq!(answer["message"], "invalid header: neon-connection-string");
}

/// "Without raw output arrays come back wrong (`'{}'::int[]` → 500 `could not parse postgres response`, `'{}'::text[]` →
/// `[""]`); raw text and array mode together are right. Otherwise int8 and numeric are strings, duplicate column names are
/// duplicate JSON keys."
#[tokio::test]
async fn values_are_json_or_text() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let raw = sql.with("neon-raw-text-output", "true");
    let raw = raw.with("neon-array-mode", "true");
    for (value, json, text) in [
        ("true", json!(true), "t"),
        ("7::int2", json!(7), "7"),
        (
            "9007199254740993::int8",
            json!("9007199254740993"),
            "9007199254740993",
        ),
        ("1.10::numeric", json!("1.10"), "1.10"),
        ("1.5::float8", json!(1.5), "1.5"),
        ("'NaN'::float4", json!("NaN"), "NaN"),
        (
            "'{\"a\":[1,null]}'::jsonb",
            json!({ "a": [1, null] }),
            "{\"a\": [1, null]}",
        ),
        ("'{1,NULL,3}'::int[]", json!([1, null, 3]), "{1,NULL,3}"),
        (
            "'{{\"a\\\"b\",c},{\"\",NULL}}'::text[]",
            json!([["a\"b", "c"], ["", null]]),
            "{{\"a\\\"b\",c},{\"\",NULL}}",
        ),
        ("'{}'::text[]", json!([""]), "{}"),
        ("'2026-11-22'::date", json!("2026-11-22"), "2026-11-22"),
        ("'\\x00ff'::bytea", json!("\\x00ff"), "\\x00ff"),
    ] {
        let select = format!("SELECT {value} AS v, NULL AS n");
        assert_eq!(
            sql.rows(&select).await,
            json!([{ "v": json, "n": null }]),
            "{value}"
        );
        assert_eq!(raw.rows(&select).await, json!([[text, null]]), "{value}");
    }
    let empty = "SELECT '{}'::int[]";
    let (status, answer) = sql.query(empty).await;
    assert_eq!(
        (status, &answer["message"]),
        (500, &json!("could not parse postgres response"))
    );
    assert_eq!(raw.rows(empty).await, json!([["{}"]]));
    let twice = json!({ "query": "SELECT 1 AS a, 2 AS a" }).to_string();
    let (_, body) = sql.send(Method::POST, "/sql", twice).await;
    assert!(body.contains(r#"{"a":1,"a":2}"#), "{body}");
}

/// "Parameters: send strings (numbers lose digits: `1.10` → `1.1`; a JSON array for jsonb fails). NUL: 22021."
#[tokio::test]
async fn parameters_are_text() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let ask = async |query: &str, parameter: Value| {
        let (status, answer) = sql
            .ask(&json!({ "query": query, "params": [parameter] }))
            .await;
        match status {
            200 => answer["rows"][0]["v"].clone(),
            _ => answer["code"].clone(),
        }
    };
    let numeric = "SELECT $1::numeric AS v";
    assert_eq!(ask(numeric, json!("1.10")).await, "1.10");
    let number: Value = serde_json::from_str("1.10").unwrap();
    assert_eq!(ask(numeric, number).await, "1.1");
    assert_eq!(ask("SELECT $1::text AS v", Value::Null).await, Value::Null);
    assert_eq!(ask("SELECT $1::bool AS v", json!(true)).await, json!(true));
    assert_eq!(
        ask("SELECT $1::text[] AS v", json!(["a\"b", null])).await,
        json!(["a\"b", null])
    );
    assert_eq!(
        ask("SELECT $1::jsonb AS v", json!({ "a": 1 })).await,
        json!({ "a": 1 })
    );
    assert_eq!(ask("SELECT $1::jsonb AS v", json!([1])).await, "22P02");
    assert_eq!(ask("SELECT $1::text AS v", json!("a\0b")).await, "22021");
    let (status, answer) = sql.query("SELECT $1::int").await;
    assert_eq!((status, &answer["code"]), (400, &json!("08P01")));
}

/// "Rows in binary: `WITH q AS (<statement>) SELECT record_send(q) FROM q`"; "errors keep SQLSTATE, constraint and detail, and
/// `position` counts the prefix (11 characters)". "Not for DML without RETURNING (0A000)".
#[tokio::test]
async fn rows_come_in_binary_by_record_send() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let wrapped = |sql: &str| format!("WITH q AS ({sql}) SELECT record_send(q) AS r FROM q");
    let sent = sql.rows(&wrapped("SELECT 7 AS a, NULL::text AS a")).await;
    let row =
        "\\x00000002".to_owned() + "00000017" + "00000004" + "00000007" + "00000019" + "ffffffff";
    assert_eq!(sent, json!([{ "r": row }]));
    sql.query("CREATE TABLE t (id int CONSTRAINT once UNIQUE)")
        .await;
    let insert = wrapped("INSERT INTO t VALUES (1) RETURNING id");
    assert_eq!(sql.query(&insert).await.0, 200);
    let (status, told) = sql.query(&insert).await;
    assert_eq!(status, 400);
    let expected = [
        ("severity", json!("ERROR")),
        ("code", json!("23505")),
        (
            "message",
            json!("duplicate key value violates unique constraint \"once\""),
        ),
        ("detail", json!("Key (id)=(1) already exists.")),
        ("schema", json!("public")),
        ("table", json!("t")),
        ("constraint", json!("once")),
        ("column", Value::Null),
        ("hint", Value::Null),
        ("position", Value::Null),
        ("where", Value::Null),
        ("dataType", Value::Null),
        ("internalPosition", Value::Null),
        ("internalQuery", Value::Null),
    ];
    for (name, value) in expected {
        assert_eq!(told.get(name), Some(&value), "{name}");
    }
    for name in ["file", "line", "routine"] {
        assert!(told[name].is_string(), "{name}");
    }
    let (_, told) = sql.query(&wrapped("SELECT nothing")).await;
    assert_eq!(
        (&told["code"], &told["position"]),
        (&json!("42703"), &json!("19"))
    );
    let (_, told) = sql.query(&wrapped("DELETE FROM t")).await;
    assert_eq!(told["code"], "0A000");
}

/// "Real SQLSTATEs, also of the connect phase (3D000); errors made by the proxy have `code: ""`. Login, credentials, IP list:
/// 400. Rate limit, wake-up, unreachable: 500."
#[tokio::test]
async fn errors_of_the_connect_phase_have_a_status_and_a_code() {
    let neon = start().await;
    let sql = Sql::connect(&neon).await;
    let told = async |string: String| {
        let (status, answer) = sql
            .with("neon-connection-string", string)
            .query("SELECT 1")
            .await;
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (status, text("code"), text("message"))
    };
    let nowhere = neon.url().replace("/neondb?", "/nowhere?");
    let no_database = "database \"nowhere\" does not exist".to_owned();
    assert_eq!(told(nowhere).await, (400, "3D000".into(), no_database));
    let refused = "password authentication failed for user 'neondb_owner'";
    let wrong = neon.url().replace(neon.password(), "wrong");
    let unknown = neon.url().replace("ep-quiet-lake", "ep-unknown");
    for string in [wrong, unknown] {
        assert_eq!(told(string).await, (400, String::new(), refused.into()));
    }
    let words = |text: &str| text.to_owned();
    let limited = words("Too many connections to this endpoint. Please try again later.");
    let blocked =
        words("This connection is trying to access this endpoint from a blocked network.");
    neon.refuse_connections(1, limited.clone());
    neon.refuse_connections(1, blocked.clone());
    assert_eq!(told(neon.url()).await, (500, String::new(), limited));
    assert_eq!(told(neon.url()).await, (400, String::new(), blocked));
}
