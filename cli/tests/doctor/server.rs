//! What the server says of itself.

use std::time::Duration;

use crate::doctor::{Doctor, start};

#[tokio::test]
async fn a_server_that_is_far_away_is_a_warning_and_no_cold_start() {
    let neon = start().await;
    neon.set_latency(Duration::from_millis(50));
    let doctor = Doctor::new("far").set("DATABASE_URL", &neon.url());
    let report = doctor.json_warm().await;
    let check = report.check("round-trip");
    assert_eq!(
        (&check["status"], &check["code"]),
        (&"warning".into(), &"far-away".into())
    );
    assert!(check["facts"]["median_ms"].as_f64().unwrap() >= 100.0);
    assert_eq!((report.code, report.verdict()), (0, "warning"));
}

#[tokio::test]
async fn a_clock_that_differs_from_the_servers_is_a_warning() {
    let neon = start().await;
    for (server, ahead) in [
        ("- interval '1 hour'", 3600.0),
        ("+ interval '1 hour'", -3600.0),
    ] {
        // The server's clock is off; only the difference can be seen.
        neon.sql(&format!(
            "CREATE SCHEMA IF NOT EXISTS off; GRANT USAGE ON SCHEMA off TO PUBLIC; \
             CREATE OR REPLACE FUNCTION off.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS \
               'SELECT pg_catalog.clock_timestamp() {}'; \
             ALTER ROLE neondb_owner SET search_path = off, pg_catalog, public",
            server.replace('\'', "''")
        ))
        .await
        .unwrap();
        let doctor = Doctor::new("clock").set("DATABASE_URL", &neon.url());
        let report = doctor.json().await;
        let check = report.check("clock");
        assert_eq!(
            (&check["status"], &check["code"]),
            (&"warning".into(), &"clock-skew".into())
        );
        let seen = check["facts"]["ahead_seconds"].as_f64().unwrap();
        assert!((seen - ahead).abs() < 60.0, "{check}");
        assert_eq!(report.code, 0);
    }
}

#[tokio::test]
async fn utc_is_known_by_all_of_its_names() {
    let neon = start().await;
    for (zone, is_utc) in [
        ("etc/universal", true),
        ("Etc/GMT0", true),
        ("Europe/Berlin", false),
    ] {
        neon.sql(&format!("ALTER ROLE neondb_owner SET timezone = '{zone}'"))
            .await
            .unwrap();
        let doctor = Doctor::new("time_zone").set("DATABASE_URL", &neon.url());
        let report = doctor.json().await;
        assert_eq!(
            report.check("time-zone")["facts"]["is_utc"],
            is_utc,
            "{zone}"
        );
    }
}

#[tokio::test]
async fn a_pooler_behind_a_direct_name_is_found_out() {
    let neon = start().await;
    let doctor = Doctor::new("hidden")
        .set("DATABASE_URL", &neon.pgbouncer_url())
        .secret(neon.password());
    let report = doctor.fails(Some("pooler"), "pooler-hidden").await;
    if report.check("statements")["facts"]["tracked"] == false {
        report.failure(Some("statements"), "statements-untracked");
    }
}

#[tokio::test]
async fn urls_that_lead_to_different_databases_are_a_failure() {
    let neon = start().await;
    neon.create_database("other").await.unwrap();
    let other = neon.url().replace("/neondb?", "/other?");
    let doctor = Doctor::new("different")
        .set("DATABASE_URL", &neon.pooled_url())
        .set("DIRECT_URL", &other)
        .secret(neon.password());
    doctor
        .fails(Some("same-database"), "different-databases")
        .await;

    // A URL that was left in a file is not even looked at.
    let doctor = Doctor::new("elsewhere").set("DATABASE_URL", &neon.pooled_url());
    let doctor = doctor.secret(neon.password());
    doctor.write(".env", &format!("DIRECT_URL='{other}'"));
    let report = doctor
        .fails(Some("environment"), "different-databases")
        .await;
    assert_eq!(report.of("direct", "environment")["status"], "failure");
    assert_eq!(report.of("app", "server")["status"], "ok");
}

#[tokio::test]
async fn what_keeps_a_compute_awake_is_a_warning() {
    let neon = start().await;
    let (client, connection) = tokio_postgres::connect(&neon.postgres_url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    let task = tokio::spawn(connection);
    client
        .batch_execute("SET application_name = 'forgetful'; BEGIN; SELECT 1")
        .await
        .unwrap();
    let doctor = Doctor::new("awake").set("DATABASE_URL", &neon.url());
    let report = doctor.json().await;
    let check = report.check("activity");
    assert_eq!(
        (&check["status"], &check["code"]),
        (&"warning".into(), &"idle-in-transaction".into())
    );
    assert!(
        check["meaning"].as_str().unwrap().contains("forgetful"),
        "{check}"
    );
    drop(client);
    task.await.unwrap().unwrap();
    assert_eq!(doctor.json().await.check("activity")["status"], "ok");
}

#[tokio::test]
async fn pending_migrations_are_a_warning() {
    let neon = start().await;
    let doctor = Doctor::new("pending").set("DATABASE_URL", &neon.pooled_url());
    assert_eq!(doctor.json().await.check("migrations")["status"], "skipped");

    doctor.write("migrations/2026-01-01-000000_create_shelves/up.sql", "");
    doctor.write("migrations/2026-01-02-000000_create_pages/up.sql", "");
    let report = doctor.json().await;
    let check = report.of("direct", "migrations");
    assert_eq!(
        (&check["status"], &check["code"]),
        (&"warning".into(), &"migrations-pending".into())
    );
    assert_eq!(check["facts"]["pending"].as_array().unwrap().len(), 2);
    assert_eq!(report.code, 0);

    neon.sql(
        "CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY, run_on TIMESTAMP); \
         INSERT INTO __diesel_schema_migrations VALUES ('20260101000000'), ('20260102000000'); \
         GRANT ALL ON __diesel_schema_migrations TO neondb_owner",
    )
    .await
    .unwrap();
    assert_eq!(doctor.json().await.check("migrations")["status"], "ok");
    neon.sql("INSERT INTO __diesel_schema_migrations VALUES ('20260103000000')")
        .await
        .unwrap();
    let report = doctor.json().await;
    assert_eq!(report.check("migrations")["code"], "migrations-unknown");
}
