//! TLS and certificates.

use neon_sim::{Certificate, NeonSim};

use crate::doctor::{Doctor, start, with};

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
        // Nothing but handshakes has reached the proxy.
        assert_eq!(neon.counters().direct.attempts, 0);
    }
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_a_warning() {
    let neon = with(NeonSim::builder().certificate(Certificate::Expiring)).await;
    let doctor = Doctor::new("expiring").set("DATABASE_URL", &neon.url());
    let (report, text) = doctor.near().await;
    let check = report.check("certificate");
    assert_eq!(check["code"], "certificate-expiring");
    assert!(
        (4..=5).contains(&check["facts"]["days_left"].as_i64().unwrap()),
        "{check}"
    );
    assert_eq!((report.code, report.verdict()), (0, "warning"));
    assert_eq!(text.code, Some(0));
    assert!(
        text.stdout.contains("Verdict: works, with 1 warning"),
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
