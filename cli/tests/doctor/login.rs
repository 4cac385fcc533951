//! Logins, and what refuses them.

use std::time::Duration;

use neon_sim::{NeonSim, Suspension};

use crate::doctor::{Doctor, start, with};

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
        // A failure that may be the user's own mistake sends nobody to a status page.
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
        .argument("--timeout=5s")
        .secret(neon.password());
    let report = doctor.json().await;
    let failure = report.failure(Some("start"), "login-timeout");
    assert!(failure["error"].as_str().unwrap().contains("within 5s"));
    assert_eq!(report.check("server")["status"], "skipped");
}

#[tokio::test]
async fn a_cold_start_is_told_from_a_warm_one() {
    // Longer than a busy machine delays the authentication.
    let neon = with(NeonSim::builder().cold_start(Duration::from_secs(4))).await;
    neon.suspend(Suspension::Normal).await;
    let doctor = Doctor::new("cold").set("DATABASE_URL", &neon.url());
    let report = doctor.json().await;
    assert_eq!(report.check("start")["facts"]["cold"], true);
    // The wait counts as the start's, and not as the authentication's as well.
    let elapsed = |check: &str| report.check(check)["elapsed_ms"].as_f64().unwrap();
    assert!(elapsed("authentication") < elapsed("start"), "{report:?}");
    doctor.json_warm().await;
}
