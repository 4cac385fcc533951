//! `diesel-neon doctor`: each failure provoked, and named.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use std::{env, fs};

use neon_sim::{Builder, Certificate, NeonSim, Suspension};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// No step may take longer than its bound, and there are not that many.
const HANG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_healthy_pair_of_urls_is_all_well() {
    let neon = start().await;
    let doctor = Doctor::new("healthy")
        .set("DATABASE_URL", &strict(&neon.url()))
        .argument("--max-size=5");
    let report = doctor.json().await;
    assert_eq!((report.code, report.verdict()), (0, "ok"), "{report:?}");
    assert_eq!(
        report.value["endpoints"][0]["roles"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let facts = |check: &str| report.check(check)["facts"].clone();
    assert_eq!(facts("dns")["addresses"][0], "127.0.0.1");
    assert_eq!(facts("tls")["version"], "TLS 1.3");
    assert_eq!(facts("tls")["negotiation"], "postgres");
    assert_eq!(facts("tls")["alpn"], "postgresql");
    assert_eq!(facts("certificate")["names"][0], "*.neon.localhost");
    assert_eq!(facts("certificate")["issuer"], "CN=neon-sim authority");
    assert!(facts("certificate")["days_left"].as_i64().unwrap() > 14);
    assert_eq!(facts("endpoint")["endpoint"], "ep-quiet-lake-123456");
    assert_eq!(facts("authentication")["role"], "neondb_owner");
    assert_eq!(facts("authentication")["method"], "SCRAM-SHA-256-PLUS");
    assert_eq!(facts("authentication")["channel_binding"], true);
    assert_eq!(facts("start")["cold"], false);
    assert_eq!(facts("server")["database"], "neondb");
    assert_eq!(facts("connections")["wanted"], 5);
    assert_eq!(facts("pooler")["shared"], false);
    assert_eq!(facts("statements")["tracked"], false);
    assert!(facts("round-trip")["median_ms"].as_f64().unwrap() > 0.0);
    for check in report.checks() {
        assert!(check["facts"].is_object(), "{check}");
    }

    let text = doctor.text().await;
    assert_eq!(text.code, 0);
    assert!(text.stdout.contains("Verdict: all well"), "{}", text.stdout);
    assert!(!text.stdout.contains('\x1b'), "{}", text.stdout);
    assert_eq!(text.stderr, "");
}

#[tokio::test]
async fn a_pooled_url_is_looked_at_with_the_direct_one() {
    let neon = start().await;
    let doctor = Doctor::new("pooled").set("DATABASE_URL", &neon.pooled_url());
    let report = doctor.json().await;
    assert_eq!(report.code, 0, "{report:?}");
    let endpoints = report.value["endpoints"].as_array().unwrap();
    assert_eq!(endpoints[0]["kind"], "pooled");
    assert_eq!(endpoints[1]["kind"], "direct");
    assert_eq!(endpoints[1]["derived"], true);
    assert_eq!(report.of("app", "pooler")["facts"]["shared"], true);
    assert_eq!(report.of("direct", "pooler")["facts"]["shared"], false);
    assert_eq!(report.check("same-database")["status"], "ok");
    assert_eq!(report.of("app", "connections")["facts"]["room"], 10_000);

    // What is installed here decides whether the pooler tracks.
    let statements = report.of("app", "statements");
    match statements["facts"]["tracked"].as_bool().unwrap() {
        true => assert_eq!(statements["status"], "ok"),
        false => {
            assert_eq!(statements["status"], "warning");
            assert_eq!(statements["code"], "statements-untracked");
        }
    }
    assert_eq!(report.of("direct", "statements")["status"], "ok");
}

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
async fn passwords_stay_hidden_wherever_they_stand() {
    let neon = start().await;
    let doctor = |url: &str| Doctor::new("hidden_password").set("DATABASE_URL", url);
    let url = neon.url();
    let host = url.find('@').unwrap() + 1;
    let query = format!(
        "postgresql://{}&user=neondb_owner&password={}",
        &url[host..],
        neon.password()
    );
    let report = doctor(&query).secret(neon.password()).json().await;
    assert_eq!(report.code, 0, "{report:?}");

    // Servers are free to quote what they were given.
    neon.refuse_connections(2, format!("what is {}?", neon.password()));
    let quoted = doctor(&url).secret(neon.password());
    let report = quoted.json().await;
    assert_eq!(
        report.failure(Some("start"), "refused")["error"],
        "what is ***?"
    );
    quoted.fails_in_text().await;
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

/// The name `0` is looked up as 0.0.0.0, which is no private address, though it leads here.
#[tokio::test]
async fn no_password_goes_in_plain_text_wherever_a_name_leads() {
    let neon = start().await;
    let url = neon.postgres_url().replace("@127.0.0.1:", "@0:");
    let url = format!("{url}&allow_plaintext_to_private_network=true");
    let doctor = Doctor::new("plain_elsewhere")
        .set("DATABASE_URL", &url)
        .secret(neon.password());
    doctor.fails(Some("tls"), "sslmode-weak").await;
    let report = doctor.json().await;
    let refused = &report.check("parameters")["facts"]["libpq_refuses"];
    assert_eq!(refused[0], "allow_plaintext_to_private_network");
}

#[tokio::test]
async fn what_the_server_refuses_with_is_diagnosed() {
    let neon = start().await;
    for (message, check, code) in [
        (
            "Endpoint ID is not specified. Either please upgrade the postgres client library (libpq) for \
             SNI support or pass the endpoint ID (first part of the domain name) as a parameter: \
             '?options=endpoint%3D<endpoint-id>'. See more at https://neon.tech/sni",
            "endpoint",
            "endpoint-missing",
        ),
        (
            "Control plane request failed: endpoint cannot be found",
            "endpoint",
            "endpoint-unknown",
        ),
        (
            "Control plane request failed: endpoint is disabled",
            "endpoint",
            "endpoint-disabled",
        ),
        (
            "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or \
             contact our support.",
            "start",
            "quota",
        ),
        (
            "Your account or project has exceeded the compute time quota. Upgrade your plan to increase \
             limits.",
            "start",
            "quota",
        ),
        ("Control plane request failed", "start", "control-plane"),
        (
            "This IP address 192.0.2.1 is not allowed to connect to this endpoint. Please add it to the \
             allowed list in the Neon console.",
            "start",
            "address-not-allowed",
        ),
        (
            "This connection is trying to access this endpoint from a blocked network.",
            "start",
            "network-blocked",
        ),
        (
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "start",
            "too-many-connections",
        ),
        (
            "too many connections for role \"neondb_owner\"",
            "start",
            "too-many-connections",
        ),
        (
            "no more connections allowed (max_client_conn)",
            "start",
            "too-many-connections",
        ),
        (
            "Too many connections attempts",
            "start",
            "too-many-attempts",
        ),
        (
            "Too many connections to this endpoint. Please try again later.",
            "start",
            "too-many-attempts",
        ),
        (
            "Failed to acquire permit to connect to the database.",
            "start",
            "too-many-attempts",
        ),
        (
            "Couldn't connect to compute node",
            "start",
            "compute-unreachable",
        ),
        ("the database system is starting up", "start", "starting-up"),
        (
            "error communicating with the server: early eof",
            "start",
            "unavailable",
        ),
        (
            "unrecognized configuration parameter \"nonsense\"",
            "start",
            "setting-unknown",
        ),
        (
            "role \"neondb_owner\" is not permitted to log in",
            "authentication",
            "role-barred",
        ),
        (
            "permission denied for database \"neondb\"",
            "start",
            "database-forbidden",
        ),
        ("a text of tomorrow", "start", "refused"),
        ("a \u{1b}[31mcolourful text", "start", "refused"),
    ] {
        neon.refuse_connections(1, message);
        let doctor = Doctor::new("refused")
            .set("DATABASE_URL", &neon.url())
            .secret(neon.password());
        let report = doctor.json().await;
        let failure = report.failure(Some(check), code);
        assert_eq!(failure["error"], message.replace('\u{1b}', " "));
        assert_eq!(failure["facts"]["sqlstate"], "XX000");
        // Whatever may be the user's own mistake sends nobody to a status page.
        let mend = failure["mend"].as_str().unwrap();
        assert_eq!(
            mend.contains("neonstatus"),
            code == "control-plane",
            "{mend}"
        );
        assert_eq!(report.check("server")["status"], "skipped");
    }
}

#[tokio::test]
async fn logins_that_go_wrong_are_diagnosed() {
    let neon = start().await;
    let url = neon.url();
    let pooled = neon.pooled_url();
    for (url, check, code) in [
        (
            url.replace(neon.password(), "wr0ng-passw0rd"),
            "authentication",
            "credentials",
        ),
        (
            url.replace("neondb_owner", "nobody"),
            "authentication",
            "credentials",
        ),
        (
            url.replace("ep-quiet-lake-123456", "ep-other-1"),
            "authentication",
            "credentials",
        ),
        (
            url.replace(&format!(":{}@", neon.password()), "@"),
            "authentication",
            "password-missing",
        ),
        (
            url.replace("/neondb?", "/shelf?"),
            "start",
            "database-unknown",
        ),
        (
            format!("{url}&options=endpoint%3Dep-other-1"),
            "endpoint",
            "endpoint-inconsistent",
        ),
        (
            format!("{pooled}&options=-c%20work_mem%3D8MB"),
            "start",
            "startup-options",
        ),
    ] {
        let doctor = Doctor::new("logins")
            .set("DATABASE_URL", &url)
            .secret(neon.password())
            .secret("wr0ng");
        doctor.fails(Some(check), code).await;
    }
}

#[tokio::test]
async fn certificates_that_are_not_trusted_are_shown_and_diagnosed() {
    for (certificate, code, shown) in [
        (
            Certificate::UnknownAuthority,
            "certificate-unknown-issuer",
            "CN=neon-sim authority",
        ),
        (
            Certificate::WrongHost,
            "certificate-wrong-host",
            "*.elsewhere.test",
        ),
        (
            Certificate::NotYetValid,
            "certificate-not-yet-valid",
            "*.neon.localhost",
        ),
        (Certificate::Expired, "certificate-expired", "2020-01-02"),
    ] {
        let neon = with(NeonSim::builder().certificate(certificate)).await;
        for url in [neon.url(), format!("{}&sslnegotiation=direct", neon.url())] {
            let doctor = Doctor::new("certificates")
                .set("DATABASE_URL", &url)
                .secret(neon.password());
            let report = doctor.fails(Some("certificate"), code).await;
            assert!(
                report.check("certificate").to_string().contains(shown),
                "{report:?}"
            );
            assert_eq!(report.check("authentication")["status"], "skipped");
        }
        // Nothing but handshakes has reached it.
        assert_eq!(neon.counters().direct.attempts, 0);
    }
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_a_warning() {
    let neon = with(NeonSim::builder().certificate(Certificate::Expiring)).await;
    let doctor = Doctor::new("expiring").set("DATABASE_URL", &neon.url());
    let report = doctor.json().await;
    let check = report.check("certificate");
    assert_eq!(check["code"], "certificate-expiring");
    assert!(
        (4..=5).contains(&check["facts"]["days_left"].as_i64().unwrap()),
        "{check}"
    );
    assert_eq!((report.code, report.verdict()), (0, "warning"));
    let text = doctor.text().await;
    assert_eq!(text.code, 0);
    assert!(
        text.stdout.contains("Verdict: works, with 1 warning"),
        "{}",
        text.stdout
    );
}

#[tokio::test]
async fn slots_that_are_all_taken_are_told_in_the_servers_own_words() {
    let neon = start().await;
    neon.sql("ALTER ROLE neondb_owner CONNECTION LIMIT 0")
        .await
        .unwrap();
    for url in [neon.url(), neon.postgres_url()] {
        let doctor = Doctor::new("slots")
            .set("DATABASE_URL", &url)
            .secret(neon.password());
        let report = doctor.fails(Some("start"), "too-many-connections").await;
        let error = &report.check("start")["error"];
        assert!(
            error
                .as_str()
                .unwrap()
                .contains("too many connections for role"),
            "{error}"
        );
        assert_eq!(report.check("authentication")["status"], "ok");
    }
}

#[tokio::test]
async fn what_was_not_looked_at_is_said() {
    let neon = start().await;
    let url = neon.url().replace(neon.password(), "wr0ng");
    let doctor = Doctor::new("skipped").set("DATABASE_URL", &url);
    let report = doctor.json().await;
    for check in [
        "start",
        "server",
        "connections",
        "statements",
        "activity",
        "migrations",
    ] {
        assert_eq!(report.check(check)["status"], "skipped", "{report:?}");
    }
    let text = doctor.text().await;
    assert!(
        text.stdout.contains("not looked at: start, server, "),
        "{}",
        text.stdout
    );
}

#[tokio::test]
async fn roots_that_cannot_be_used_are_told() {
    let neon = start().await;
    let url = neon.url();
    let at = url.find("&sslrootcert=").unwrap();
    Doctor::new("system_roots")
        .set("DATABASE_URL", &url[..at])
        .fails(Some("certificate"), "certificate-unknown-issuer")
        .await;
    Doctor::new("no_roots")
        .set(
            "DATABASE_URL",
            &format!("{}&sslrootcert=/no/ca.pem", &url[..at]),
        )
        .fails(Some("tls"), "roots-unusable")
        .await;
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_diagnosed() {
    let url = |port: u16| format!("postgresql://u:s3cret@127.0.0.1:{port}/db?sslmode=require");
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let doctor = Doctor::new("refuses")
        .set("DATABASE_URL", &url(port))
        .secret("s3cr");
    doctor.fails(Some("tcp"), "tcp-refused").await;

    let doctor = Doctor::new("unresolved")
        .set(
            "DATABASE_URL",
            "postgresql://u:s3cret@ep-a-1.nowhere.invalid/db?sslmode=require",
        )
        .secret("s3cr");
    let report = doctor.json().await;
    let code = report.check("dns")["code"].as_str().unwrap().to_owned();
    assert!(
        ["dns-unresolved", "dns-timeout"].contains(&code.as_str()),
        "{report:?}"
    );
    assert_eq!(report.code, 1);
    assert_eq!(report.check("tcp")["status"], "skipped");

    // For documentation only: nobody answers, or the network says so.
    let url_nowhere = "postgresql://u:s3cret@h.example/db?hostaddr=192.0.2.1";
    let doctor = Doctor::new("nowhere")
        .set("DATABASE_URL", url_nowhere)
        .argument("--timeout=500ms");
    let report = doctor.json().await;
    let code = report.check("tcp")["code"].as_str().unwrap();
    assert!(
        ["tcp-timeout", "tcp-unreachable", "tcp-refused"].contains(&code),
        "{code}"
    );

    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let doctor = Doctor::new("silent")
        .set("DATABASE_URL", &url(port))
        .argument("--timeout=500ms");
    doctor.fails(Some("tls"), "tls-timeout").await;

    // Takes connections and hangs up.
    let curt = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = curt.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = curt.accept().await {
            let _ = stream.read_u8().await;
        }
    });
    let doctor = Doctor::new("curt").set("DATABASE_URL", &url(port));
    doctor.fails(Some("tls"), "tls-closed").await;
    task.abort();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_swallows_packets_is_a_time_out() {
    // Linux drops what knocks at a queue that is full.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "there is no end to the queue");
    }
    let url = format!("postgresql://u:s3cret@{address}/db?sslmode=require");
    let doctor = Doctor::new("swallows")
        .set("DATABASE_URL", &url)
        .argument("--timeout=500ms")
        .secret("s3cr");
    let report = doctor.fails(Some("tcp"), "tcp-timeout").await;
    assert_eq!(report.check("tls")["status"], "skipped");
}

#[tokio::test]
async fn a_login_that_cannot_be_bound_to_tls_is_told_where_it_must_be() {
    let neon = with(NeonSim::builder().channel_binding(false)).await;
    for url in [neon.url(), neon.pooled_url()] {
        let doctor = Doctor::new("unbound")
            .set("DATABASE_URL", &url)
            .secret(neon.password());
        let report = doctor
            .fails(Some("authentication"), "channel-binding")
            .await;
        assert_eq!(report.check("start")["status"], "skipped");

        let url = url.replace("channel_binding=require", "channel_binding=prefer");
        let doctor = Doctor::new("unbound_by_choice").set("DATABASE_URL", &url);
        let report = doctor.json().await;
        assert_eq!(report.code, 0, "{report:?}");
        let facts = &report.check("authentication")["facts"];
        assert_eq!(facts["channel_binding"], false);
        assert_eq!(facts["method"], "SCRAM-SHA-256");
    }
}

#[tokio::test]
async fn a_server_that_is_far_away_is_a_warning() {
    let neon = start().await;
    neon.set_latency(Duration::from_millis(50));
    let doctor = Doctor::new("far").set("DATABASE_URL", &neon.url());
    let report = doctor.json().await;
    let check = report.check("round-trip");
    assert_eq!(
        (&check["status"], &check["code"]),
        (&"warning".into(), &"far-away".into())
    );
    assert!(check["facts"]["median_ms"].as_f64().unwrap() >= 100.0);
    assert_eq!((report.code, report.verdict()), (0, "warning"));
    // A slow way is not a cold start.
    assert_eq!(report.check("start")["facts"]["cold"], false);
}

#[tokio::test]
async fn a_clock_that_differs_from_the_servers_is_a_warning() {
    let neon = start().await;
    for (server, ahead) in [
        ("- interval '1 hour'", 3600.0),
        ("+ interval '1 hour'", -3600.0),
    ] {
        // It is the server's clock that is off; only the difference can be seen.
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
async fn a_server_without_tls_is_told() {
    let neon = start().await;
    let url = neon
        .postgres_url()
        .replace("sslmode=disable", "sslmode=require");
    let doctor = Doctor::new("no_tls")
        .set("DATABASE_URL", &url)
        .secret(neon.password());
    doctor.fails(Some("tls"), "tls-unsupported").await;
}

#[tokio::test]
async fn the_server_that_target_session_attrs_asks_for_is_looked_at() {
    let (replica, primary) = (start().await, start().await);
    let read_only = "ALTER ROLE neondb_owner SET default_transaction_read_only = on";
    replica.sql(read_only).await.unwrap();
    let same = format!("ALTER ROLE neondb_owner PASSWORD '{}'", replica.password());
    primary.sql(&same).await.unwrap();
    let host = |neon: &NeonSim| {
        let url = neon.postgres_url();
        let (_, rest) = url.split_once('@').unwrap();
        rest.split_once('/').unwrap().0.to_owned()
    };
    let url = |hosts: String| {
        let login = format!("neondb_owner:{}", replica.password());
        format!("postgresql://{login}@{hosts}/neondb?target_session_attrs=read-write")
    };
    let doctor = Doctor::new("replica").set("DATABASE_URL", &url(host(&replica)));
    doctor.fails(Some("start"), "target-session-attrs").await;

    let hosts = format!("{},{}", host(&replica), host(&primary));
    let doctor = Doctor::new("replica_and_primary").set("DATABASE_URL", &url(hosts));
    let report = doctor.json().await;
    assert_eq!(report.code, 0, "{report:?}");
    let passed_over = report.check("start")["summary"].as_str().unwrap();
    assert!(
        passed_over.contains("the server is read-only"),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_login_that_hangs_ends_with_a_verdict() {
    let neon = start().await;
    neon.hang_connections(1);
    let doctor = Doctor::new("hangs")
        .set("DATABASE_URL", &neon.url())
        .argument("--timeout=1s")
        .secret(neon.password());
    let report = doctor.json().await;
    let failure = report.failure(Some("start"), "login-timeout");
    assert!(failure["error"].as_str().unwrap().contains("within 1s"));
    // The proxy says so only together with its next words.
    assert_eq!(report.check("server")["status"], "skipped");
}

#[tokio::test]
async fn a_cold_start_is_told_from_a_warm_one() {
    let neon = start().await;
    neon.suspend(Suspension::Normal).await;
    let doctor = Doctor::new("cold").set("DATABASE_URL", &neon.url());
    let report = doctor.json().await;
    assert_eq!(report.check("start")["facts"]["cold"], true);
    // The wait is the start's, and not the authentication's as well.
    let elapsed = |check: &str| report.check(check)["elapsed_ms"].as_f64().unwrap();
    assert!(elapsed("authentication") < elapsed("start"), "{report:?}");
    let report = doctor.json().await;
    assert_eq!(report.check("start")["facts"]["cold"], false);
}

#[tokio::test]
async fn a_pool_that_does_not_fit_is_a_failure() {
    let neon = start().await;
    let doctor = Doctor::new("too_large")
        .set("DATABASE_URL", &neon.url())
        .argument("--instances=50")
        .argument("--max-size=20");
    let report = doctor.fails(Some("connections"), "pool-too-large").await;
    assert_eq!(report.check("connections")["facts"]["wanted"], 1000);

    // More instances than connections: no size of a pool would do.
    let doctor = Doctor::new("too_many")
        .set("DATABASE_URL", &neon.url())
        .argument("--instances=5000");
    let report = doctor.fails(Some("connections"), "pool-too-large").await;
    let mend = report.check("connections")["mend"].as_str().unwrap();
    assert!(mend.starts_with("run at most 97 instances, "), "{mend}");

    // Through the pooler the same fits.
    let doctor = Doctor::new("fits")
        .set("DATABASE_URL", &neon.pooled_url())
        .argument("--instances=50")
        .argument("--max-size=20");
    assert_eq!(doctor.json().await.code, 0);
    // Also where only the direct endpoint can be asked: the pool does not use that one.
    let doctor = Doctor::new("fits_unasked")
        .set(
            "DATABASE_URL",
            &format!("{}&options=-c%20work_mem%3D8MB", neon.pooled_url()),
        )
        .set("DIRECT_URL", &neon.url())
        .argument("--instances=50");
    let report = doctor.fails(Some("start"), "startup-options").await;
    assert_eq!(report.value["failures"], 1, "{report:?}");
    assert_eq!(report.check("connections")["status"], "skipped");
    assert_eq!(report.check("migrations")["endpoint"], "direct");

    neon.sql("ALTER ROLE neondb_owner CONNECTION LIMIT 8")
        .await
        .unwrap();
    let doctor = Doctor::new("role_limit").set("DATABASE_URL", &neon.url());
    let report = doctor.fails(Some("connections"), "pool-too-large").await;
    assert_eq!(report.check("connections")["facts"]["room"], 8);
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

    // What was left in a file is not even looked at.
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

#[tokio::test]
async fn the_pools_numbers_follow_from_the_settings() {
    let neon = start().await;
    let doctor = Doctor::new("numbers")
        .set("DATABASE_URL", &format!("{}&connect_timeout=3", neon.url()))
        .argument("--suspend-after=60s")
        .argument("--max-size=7");
    let report = doctor.json().await;
    let check = report.check("pool");
    let facts = &check["facts"];
    assert_eq!(facts["max_lifetime_seconds"], 48.0);
    assert_eq!(facts["idle_timeout_seconds"], 30.0);
    assert_eq!(facts["max_size"], 7);
    assert_eq!(check["code"], "connect-timeout-short");
}

#[tokio::test]
async fn colours_are_for_terminals_or_on_demand() {
    let doctor = Doctor::new("colours");
    assert!(!doctor.text().await.stdout.contains('\x1b'));
    let always = Doctor::new("colours_always").argument("--color=always");
    assert!(always.text().await.stdout.contains("\x1b["));
    let never = Doctor::new("colours_never")
        .argument("--color=never")
        .set("CLICOLOR_FORCE", "1");
    assert!(!never.text().await.stdout.contains('\x1b'));
    let no_color = Doctor::new("colours_no")
        .set("NO_COLOR", "1")
        .set("CLICOLOR_FORCE", "1");
    assert!(!no_color.text().await.stdout.contains('\x1b'));
}

async fn start() -> NeonSim {
    with(NeonSim::builder()).await
}

async fn with(builder: Builder) -> NeonSim {
    builder
        .never_suspend()
        .start()
        .await
        .expect("the stand-in for Neon starts")
}

/// In the form that nothing is to be said against.
fn strict(url: &str) -> String {
    url.replace("sslmode=require", "sslmode=verify-full")
}

/// The command in a folder of its own, with nothing of the environment around the test.
struct Doctor {
    folder: PathBuf,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    secrets: Vec<String>,
}

impl Doctor {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("doctor")
            .join(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        let doctor = Self {
            folder,
            variables: Vec::new(),
            arguments: Vec::new(),
            secrets: Vec::new(),
        };
        // Keep it from looking for some further up.
        doctor.write(".env", "");
        doctor.write("diesel.toml", "[migrations_directory]\ndir = 'migrations'");
        doctor
    }

    fn set(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Must not be in what is printed.
    fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn text(&self) -> Text {
        self.run(&[]).await
    }

    async fn json(&self) -> Report {
        let text = self.run(&["--json"]).await;
        assert_eq!(text.stderr, "");
        Report {
            code: text.code,
            value: serde_json::from_str(&text.stdout).expect("one JSON document"),
        }
    }

    /// The verdict in both forms.
    async fn fails(&self, check: Option<&str>, code: &str) -> Report {
        let report = self.json().await;
        let failure = report.failure(check, code).clone();
        let text = self.text().await;
        assert_eq!(text.code, 1);
        assert!(text.stdout.contains("FAIL"), "{}", text.stdout);
        // The two were written at different times, which some of them name.
        let said = without_digits(&text.stdout);
        for part in ["meaning", "mend"] {
            let part = without_digits(failure[part].as_str().unwrap());
            assert!(said.contains(&part), "{}", text.stdout);
        }
        assert!(
            text.stdout.contains(&format!("({code})")),
            "{}",
            text.stdout
        );
        report
    }

    async fn fails_in_text(&self) {
        let text = self.text().await;
        assert_eq!(text.code, 1, "{}", text.stdout);
    }

    async fn run(&self, more: &[&str]) -> Text {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diesel-neon"));
        command
            .arg("doctor")
            .args(&self.arguments)
            .args(more)
            .current_dir(&self.folder)
            .env_clear()
            .envs(
                ["HOME", "PATH"]
                    .into_iter()
                    .filter_map(|name| Some((name, env::var_os(name)?))),
            )
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let run = spawn_blocking(move || command.output().unwrap());
        let output: Output = timeout(HANG, run).await.expect("no step hangs").unwrap();
        let text = Text {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in &self.secrets {
            assert!(!text.stdout.contains(secret), "{}", text.stdout);
            assert!(!text.stderr.contains(secret), "{}", text.stderr);
        }
        text
    }
}

struct Text {
    code: i32,
    stdout: String,
    stderr: String,
}

#[derive(Debug)]
struct Report {
    code: i32,
    value: Value,
}

impl Report {
    fn verdict(&self) -> &str {
        self.value["verdict"].as_str().unwrap()
    }

    fn checks(&self) -> &[Value] {
        self.value["checks"].as_array().unwrap()
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        let found = self.checks().iter().find(|check| check["check"] == name);
        found.unwrap_or_else(|| panic!("no check {name}: {self:?}"))
    }

    #[track_caller]
    fn of(&self, endpoint: &str, name: &str) -> &Value {
        let mut checks = self.checks().iter();
        let found = checks.find(|check| check["endpoint"] == endpoint && check["check"] == name);
        found.unwrap_or_else(|| panic!("no check {name} of {endpoint}: {self:?}"))
    }

    #[track_caller]
    fn failure(&self, check: Option<&str>, code: &str) -> &Value {
        assert_eq!((self.code, self.verdict()), (1, "failure"), "{self:?}");
        let found = self
            .checks()
            .iter()
            .find(|c| c["status"] == "failure" && c["code"] == code);
        let found = found.unwrap_or_else(|| panic!("no failure {code}: {self:?}"));
        if let Some(check) = check {
            assert_eq!(found["check"], check, "{self:?}");
        }
        found
    }
}

fn without_digits(text: &str) -> String {
    text.replace(|c: char| c.is_ascii_digit(), "#")
}
