//! The report as a whole.

use crate::doctor::{Doctor, start, strict};

#[tokio::test]
async fn a_healthy_pair_of_urls_is_all_well() {
    let neon = start().await;
    let doctor = Doctor::new("healthy")
        .set("DATABASE_URL", &strict(&neon.url()))
        .argument("--max-size=5");
    let (report, text) = doctor.near().await;
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

    assert_eq!(text.code, Some(0));
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

    // The PgBouncer that is installed here decides.
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
    assert_eq!(quoted.text().await.code, Some(1));
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
