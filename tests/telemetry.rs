//! Statements as `QueryTelemetry` reports them: the spans that a subscriber gets, and the values that a recorder gets.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::collections::BTreeMap;

use common::log::Log;
use common::{neon, pool, pool_of};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{DatabaseErrorExt, DatabaseUrl, QueryTelemetry};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing_subscriber::fmt::format::FmtSpan;

diesel::table! {
    books (title) {
        title -> Text,
    }
}

#[tokio::test]
async fn statements_are_reported_in_opentelemetrys_names_without_their_values() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let neon = neon().await;
    let table = "CREATE TABLE books (title TEXT PRIMARY KEY); GRANT ALL ON books TO PUBLIC";
    neon.sql(table).await.unwrap();
    let url = DatabaseUrl::parse(&neon.url()).unwrap();
    let telemetry = QueryTelemetry::new(&url);

    let direct = pool(&neon.url(), |policy| policy);
    let mut connection = direct.get().await.unwrap();
    connection.set_instrumentation(telemetry.instrumentation());
    let add = diesel::insert_into(books::table).values(books::title.eq("a secret bind"));
    add.execute(&mut connection).await.unwrap();
    let again = add.execute(&mut connection).await.unwrap_err();
    assert_eq!(again.sqlstate(), Some("23505"));
    let found: Vec<String> = books::table
        .select(books::title)
        .load(&mut connection)
        .await
        .unwrap();
    assert_eq!(found, ["a secret bind"]);
    let change = format!("ALTER ROLE neondb_owner PASSWORD '{}'", neon.password());
    connection.batch_execute(&change).await.unwrap();
    let quoted = connection
        .batch_execute("SELECT 'a secret literal'::int")
        .await;
    quoted.unwrap_err();
    connection
        .transaction(async |connection| connection.batch_execute("SELECT 1; SELECT 2").await)
        .await
        .unwrap();
    // A statement whose future is dropped ends then.
    let slow = sql_query("SELECT pg_sleep(600) FROM books").execute(&mut connection);
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(50), slow).await;
    given_up.unwrap_err();
    let given_up = log.text();
    assert!(given_up.contains(r#"error.type="dropped""#), "{given_up}");
    drop(connection);

    // Diesel's own connections tell instrumentation the binds too.
    let stock = pool_of::<AsyncPgConnection>(&neon.url(), |policy| policy);
    let mut connection = stock.get().await.unwrap();
    let telling = telemetry.clone().with_query_text();
    connection.set_instrumentation(telling.instrumentation());
    let query = sql_query("SELECT title FROM books WHERE title = $1");
    let query = query.bind::<Text, _>("a secret bind");
    query.execute(&mut connection).await.unwrap();
    drop(connection);

    let log = log.text();
    for secret in ["a secret", neon.password()] {
        assert!(!log.contains(secret), "{log}");
    }
    let spans: Vec<_> = log
        .lines()
        .filter(|line| line.contains("diesel_neon::query"))
        .collect();
    let host = &url.hosts()[0];
    let server = format!(
        r#"server.address="{}" server.port={}"#,
        host.name, host.port
    );
    for span in &spans {
        assert!(span.contains(&server), "{span}");
        assert!(
            span.contains(r#"db.system.name="postgresql" db.namespace="neondb""#),
            "{span}"
        );
        assert!(span.contains(r#"otel.kind="client""#), "{span}");
    }
    let of = |summary: &str| {
        let summary = format!(r#"db.query.summary="{summary}""#);
        spans
            .iter()
            .filter(|span| span.contains(&summary))
            .collect::<Vec<_>>()
    };
    let inserts = of("INSERT books");
    assert_eq!(inserts.len(), 2, "{log}");
    assert!(!inserts[0].contains("error.type"), "{log}");
    assert!(
        inserts[0].contains(r#"db.operation.name="INSERT" db.collection.name="books""#),
        "{log}"
    );
    for attribute in ["error.type", "db.response.status_code"] {
        assert!(
            inserts[1].contains(&format!(r#"{attribute}="23505""#)),
            "{log}"
        );
    }
    assert!(inserts[1].contains(r#"otel.status_code="ERROR""#), "{log}");
    let selects = of("SELECT books");
    assert_eq!(selects.len(), 3, "{log}");
    assert!(!selects[0].contains("db.query.text"), "{log}");
    let text = r#"db.query.text="SELECT title FROM books WHERE title = $1""#;
    assert!(selects[2].contains(text), "{log}");
    for (summary, spans) in [("ALTER", 1), ("BATCH", 1), ("BEGIN", 1), ("COMMIT", 1)] {
        assert_eq!(of(summary).len(), spans, "{summary}: {log}");
    }

    let mut counts = BTreeMap::new();
    for (key, unit, _, value) in snapshotter.snapshot().into_vec() {
        if key.key().name() != "db.client.operation.duration" {
            continue;
        }
        assert_eq!(unit, Some(metrics::Unit::Seconds));
        let labels: BTreeMap<_, _> = key.key().labels().map(|l| (l.key(), l.value())).collect();
        let label = |name| labels.get(name).copied().unwrap_or_default();
        assert_eq!(label("db.system.name"), "postgresql");
        assert_eq!(label("db.namespace"), "neondb");
        assert_eq!(label("server.address"), host.name.to_string());
        assert_eq!(label("server.port"), host.port.to_string());
        let name = ["db.operation.name", "db.collection.name", "error.type"]
            .map(label)
            .join(" ");
        let DebugValue::Histogram(values) = value else {
            panic!("{value:?}");
        };
        assert!(
            values
                .iter()
                .all(|seconds| (0.0..60.0).contains(&seconds.into_inner()))
        );
        counts.insert(name.trim_end().to_owned(), values.len());
    }
    for (name, expected) in [
        ("INSERT books", 1),
        ("INSERT books 23505", 1),
        ("SELECT books", 2),
        ("SELECT books dropped", 1),
        ("SELECT  22P02", 1),
        ("ALTER", 1),
        ("BATCH", 1),
        ("BEGIN", 1),
        ("COMMIT", 1),
    ] {
        assert_eq!(counts.get(name), Some(&expected), "{name} in {counts:?}");
    }
}
