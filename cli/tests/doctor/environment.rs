//! Which URLs there are, and what is in them.

use serde_json::Value;

use crate::doctor::{Doctor, start};

#[tokio::test]
async fn the_variable_and_its_file_are_named() {
    let neon = start().await;
    let doctor = Doctor::new("variables").set("POSTGRES_URL", &neon.pooled_url());
    doctor.write(".env", &format!("DIRECT_URL='{}'", neon.url()));
    let report = doctor.json().await;
    let endpoints = report.value["endpoints"].as_array().unwrap();
    assert_eq!(endpoints[0]["variable"], "POSTGRES_URL");
    assert_eq!(endpoints[0]["file"], Value::Null);
    assert_eq!(endpoints[1]["variable"], "DIRECT_URL");
    assert!(endpoints[1]["file"].as_str().unwrap().ends_with("/.env"));
    let text = doctor.text().await;
    assert!(
        text.stdout.contains("direct, from DIRECT_URL, set in /"),
        "{}",
        text.stdout
    );
}

#[tokio::test]
async fn environments_that_give_no_url_are_told() {
    let doctor = Doctor::new("missing");
    doctor.fails(None, "url-missing").await;

    for (url, code) in [
        ("s3cret", "url-invalid"),
        ("postgres://u:s3cr/et@h/db", "url-invalid"),
        ("postgres://u:s3cret@h/db?sslmod=x", "parameter-unknown"),
        (
            "postgres://u:s3cret@h/db?sslcert=x",
            "parameter-unsupported",
        ),
        (
            "postgres://u:s3cret@h/db?channel_binding=x",
            "parameter-invalid",
        ),
        (
            "postgres://u:s3cret@h.example/db?sslmode=disable",
            "sslmode-weak",
        ),
        (
            "postgres://u:s3cret@h.example/db?sslmode=prefer",
            "sslmode-weak",
        ),
    ] {
        let doctor = Doctor::new("unusable")
            .set("DATABASE_URL", url)
            .secret("s3cr");
        doctor.fails(None, code).await;
    }

    let doctor = Doctor::new("dotenv").secret("s3cr");
    doctor.write(
        ".env",
        "DATABASE_URL=postgresql://u:s3cret@h/db with a space",
    );
    doctor.fails(None, "dotenv-invalid").await;
}

#[tokio::test]
async fn parameters_that_other_drivers_choke_on_are_listed() {
    let neon = start().await;
    let url = format!("{}&pgbouncer=true&connection_limit=1", neon.url());
    let report = Doctor::new("parameters")
        .set("DATABASE_URL", &url)
        .json()
        .await;
    let check = report.check("parameters");
    assert_eq!(
        (&check["status"], &check["code"]),
        (&"warning".into(), &"parameter-alien".into())
    );
    assert_eq!(
        check["facts"]["libpq_refuses"],
        serde_json::json!(["pgbouncer", "connection_limit"])
    );
    assert_eq!(
        check["facts"]["tokio_postgres_refuses"],
        serde_json::json!(["sslrootcert", "pgbouncer", "connection_limit"])
    );
    assert_eq!(report.code, 0);
}

#[tokio::test]
async fn a_missing_sslmode_is_told() {
    let neon = start().await;
    let url = neon.url().replace("sslmode=require&", "");
    let report = Doctor::new("no_sslmode")
        .set("DATABASE_URL", &url)
        .json()
        .await;
    assert_eq!(report.check("sslmode")["code"], "sslmode-missing");
    assert_eq!(report.code, 0);

    // On loopback it means plain text, which the proxy refuses.
    let plain = format!(
        "postgresql://neondb_owner:{}@127.0.0.1:{}/neondb",
        neon.password(),
        neon.port()
    );
    Doctor::new("plain")
        .set("DATABASE_URL", &plain)
        .secret(neon.password())
        .fails(Some("start"), "sslmode-missing")
        .await;
}

#[tokio::test]
async fn a_pooled_url_in_a_direct_variable_is_a_warning() {
    let neon = start().await;
    let doctor = Doctor::new("misnamed")
        .set("DATABASE_URL", &neon.pooled_url())
        .set("DATABASE_URL_UNPOOLED", &neon.pooled_url());
    let report = doctor.json().await;
    assert_eq!(report.code, 0);
    let check = report.of("direct", "environment");
    assert_eq!(
        (&check["status"], &check["code"]),
        (&"warning".into(), &"pooled-direct-url".into())
    );
}
