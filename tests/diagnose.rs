//! `diagnose::Probe`: each step of a connect by itself.

mod common;

use std::time::Duration;

use diesel_neon::diagnose::{Login, LoginMethod, Peer, Probe};
use diesel_neon::{ConnectError, ConnectErrorKind, DatabaseUrl};
use neon_sim::{Certificate, Suspension};
use tokio::time::timeout;

use common::{HANG, neon, neon_with};

/// The address that the one host of `url` leads to first.
async fn probe(url: &str, limit: Duration) -> (Probe, Peer) {
    let url = DatabaseUrl::parse(url).unwrap();
    let probe = Probe::new(&url, limit).unwrap();
    let peers = probe.look_up(&url.hosts()[0]).await.unwrap();
    (probe, peers[0].clone())
}

async fn log_in(url: &str, limit: Duration) -> Login {
    let (probe, peer) = probe(url, limit).await;
    timeout(HANG, probe.log_in(&peer)).await.expect("no hang")
}

fn code(error: &ConnectError) -> &str {
    error.diagnosis().code()
}

#[tokio::test]
async fn each_step_tells_how_it_went() {
    let neon = neon().await;
    let before = neon.counters().direct;
    let (probe, peer) = probe(&neon.url(), HANG).await;
    assert_eq!(
        peer.address().to_string(),
        format!("127.0.0.1:{}", neon.port())
    );
    probe.reach(&peer).await.unwrap();
    let seen = probe.secure(&peer).await.expect("TLS");
    assert_eq!(
        seen.session.unwrap().alpn.as_deref(),
        Some(&b"postgresql"[..])
    );
    assert_eq!(seen.certificates.len(), 1);
    assert_eq!(neon.counters().direct.attempts, before.attempts);

    let login = probe.log_in(&peer).await;
    assert_eq!(login.method, Some(LoginMethod::ScramSha256Plus));
    // A login on a busy machine may take as long as one behind a cold start.
    let is_slow = login.start >= Some(Duration::from_millis(100));
    assert!(
        login.is_authenticated && login.start.is_some() && (!login.was_cold || is_slow),
        "{login:?}"
    );
    let session = login.session.unwrap();
    assert!(session.parameter("server_version").is_some());
    session
        .into_client()
        .batch_execute("SELECT 1")
        .await
        .unwrap();

    neon.suspend(Suspension::Normal).await;
    let login = probe.log_in(&peer).await;
    assert!(login.was_cold, "{login:?}");
}

#[tokio::test]
async fn the_way_in_which_a_client_had_to_prove_itself_is_told() {
    let neon = neon_with(|neon| neon.channel_binding(false)).await;
    let unbound = neon
        .url()
        .replace("channel_binding=require", "channel_binding=prefer");
    let login = log_in(&unbound, HANG).await;
    assert_eq!(login.method, Some(LoginMethod::ScramSha256));

    let login = log_in(&neon.url(), HANG).await;
    assert!(!login.is_authenticated);
    assert_eq!(code(&login.session.unwrap_err()), "channel-binding");
}

#[tokio::test]
async fn a_certificate_is_shown_that_is_not_trusted() {
    let neon = neon_with(|neon| neon.certificate(Certificate::UnknownAuthority)).await;
    for negotiation in ["postgres", "direct"] {
        let url = format!("{}&sslnegotiation={negotiation}", neon.url());
        let (probe, peer) = probe(&url, HANG).await;
        let seen = probe.secure(&peer).await.expect("TLS");
        let error = seen.session.unwrap_err();
        assert_eq!(code(&error), "certificate-unknown-issuer", "{error}");
        assert_eq!(seen.certificates.len(), 1);
        assert_eq!(neon.counters().direct.attempts, 0);
    }
}

#[tokio::test]
async fn a_step_ends_when_its_time_is_up() {
    let neon = neon().await;
    let limit = Duration::from_secs(5);
    neon.hang_connections(1);
    let error = log_in(&neon.url(), limit).await.session.unwrap_err();
    assert_eq!(
        (code(&error), error.kind()),
        ("login-timeout", ConnectErrorKind::TimedOut)
    );
    assert_eq!(error.reason(), "no connection within 5s");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=require");
    let (probe, peer) = probe(&url, limit).await;
    probe.reach(&peer).await.unwrap();
    let seen = timeout(HANG, probe.secure(&peer)).await.expect("no hang");
    assert_eq!(code(&seen.unwrap().session.unwrap_err()), "tls-timeout");
}

/// The name `0` leads to 0.0.0.0, which is no private address, though it leads here.
#[tokio::test]
async fn plain_text_is_sent_nowhere_that_the_pool_would_not_send_it() {
    let neon = neon().await;
    let url = neon.postgres_url().replace("@127.0.0.1:", "@0:");
    let url = format!("{url}&allow_plaintext_to_private_network=true");
    let (probe, peer) = probe(&url, HANG).await;
    let error = probe.reach(&peer).await.unwrap_err();
    assert_eq!(code(&error), "sslmode-weak", "{error}");
    assert!(probe.secure(&peer).await.is_none());
    let error = probe.log_in(&peer).await.session.unwrap_err();
    assert_eq!(code(&error), "sslmode-weak", "{error}");
}
