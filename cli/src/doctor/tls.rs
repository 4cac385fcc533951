//! TLS as the pool speaks it.

use std::time::Duration;

use diesel_neon::diagnose::{TlsInspection, TlsSession};
use diesel_neon::{ConnectError, Encryption, RootCertificates, SslNegotiation};
use rustls::ProtocolVersion;

use super::certificate;
use super::report::{Check, Finding};

/// Returns the checks of a handshake with `host` and of the certificates that the server showed in it.
pub(crate) fn checks(
    encryption: &Encryption,
    host: &str,
    seen: &TlsInspection,
    took: Duration,
) -> Vec<Check> {
    let chain = &seen.certificates;
    match &seen.session {
        Ok(session) => {
            let agreed = agreed(encryption, host, session).took(took);
            let certificate = certificate::check(chain, None);
            [agreed].into_iter().chain(certificate).collect()
        }
        Err(error) if is_untrusted(error) => {
            let tls = Check::ok("tls", "the server speaks TLS").took(took);
            let certificate = certificate::check(chain, Some(Finding::of(error)))
                .map(|check| explained(check, error, encryption, host));
            [tls].into_iter().chain(certificate).collect()
        }
        Err(error) => {
            let failed = Check::failure("tls", "there is no TLS session", Finding::of(error));
            vec![failed.took(took)]
        }
    }
}

fn is_untrusted(error: &ConnectError) -> bool {
    error.diagnosis().code().starts_with("certificate-")
}

/// Adds what the certificate was checked against.
fn explained(check: Check, error: &ConnectError, encryption: &Encryption, host: &str) -> Check {
    match (error.diagnosis().code(), encryption) {
        ("certificate-expired" | "certificate-not-yet-valid", _) => check.detail(format!(
            "this machine's clock is at {}",
            certificate::clock()
        )),
        ("certificate-wrong-host", _) => check.detail(format!("the URL's host is {host}")),
        (
            "certificate-unknown-issuer",
            Encryption::Tls {
                roots: RootCertificates::File(path),
                ..
            },
        ) => check.detail(format!(
            "trusted are the roots in {}, which sslrootcert names",
            path.display()
        )),
        ("certificate-unknown-issuer", _) => check.detail("trusted are this machine's roots"),
        _ => check,
    }
}

fn agreed(encryption: &Encryption, host: &str, session: &TlsSession) -> Check {
    let version = match session.version {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let how = match encryption {
        Encryption::Tls {
            negotiation: SslNegotiation::Direct,
            ..
        } => "direct",
        _ => "postgres",
    };
    let is_http = session.alpn.as_deref() == Some(b"http/1.1");
    let alpn = session.alpn.as_deref().map(String::from_utf8_lossy);
    let protocol = match &alpn {
        Some(protocol) => format!("ALPN {protocol}"),
        None => "no ALPN".to_owned(),
    };
    let cipher = match session.cipher_suite {
        Some(suite) => format!("{suite:?}"),
        None => "unknown".to_owned(),
    };
    Check::ok(
        "tls",
        match is_http {
            true => format!("{version}, for a WebSocket, {protocol}, {cipher}"),
            false => format!("{version}, sslnegotiation={how}, {protocol}, {cipher}"),
        },
    )
    .fact("version", version)
    .fact("negotiation", how)
    .fact("alpn", alpn.as_deref())
    .fact("cipher", cipher)
    .fact("server_name", host)
}
