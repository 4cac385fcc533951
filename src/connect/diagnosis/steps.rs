//! The failures of this side, step by step, and those of a server in unknown words.

use std::io;

use rustls::CertificateError;

use super::entry::{Diagnosis, steps};
use crate::transport::DialError;

/// Returns the diagnosis of a stream that could not be opened.
pub(super) fn of_dialling(error: &DialError) -> &'static Diagnosis {
    match error {
        DialError::Resolve { .. } => &NAME_UNRESOLVED,
        DialError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::ConnectionRefused => &TCP_REFUSED,
            io::ErrorKind::TimedOut => &TCP_TIMEOUT,
            io::ErrorKind::NotFound => &SOCKET_MISSING,
            _ => &TCP_UNREACHABLE,
        },
        DialError::Forbidden { .. } => &PLAIN_TEXT,
        #[cfg(any(feature = "http", feature = "websocket"))]
        DialError::Proxy { source, .. } => super::proxy::of_proxy(source),
        DialError::NoTls(_) => &TLS_UNSUPPORTED,
        DialError::Refused(_) => &BROKEN,
        DialError::NotPostgres(_) => &NOT_POSTGRES,
        DialError::Closed { .. } => &TLS_CLOSED,
        DialError::Tls { source, .. } => of_tls(source),
    }
}

/// Returns the diagnosis of an error that tokio-postgres, or the tap below it, has found in a server's bytes.
pub(super) fn of_driver(text: &str) -> Option<&'static Diagnosis> {
    let says = |texts: &[&str]| texts.iter().any(|said| text.contains(said));
    if says(NOT_THE_PROTOCOL) {
        return Some(&NOT_POSTGRES);
    }
    #[cfg(feature = "websocket")]
    if says(&[crate::session::OTHER_METHOD]) {
        return Some(&super::websocket::METHOD);
    }
    // With TLS 1.3 a server refuses a client only once the client has finished its handshake.
    says(&["received fatal alert"]).then_some(&TLS_FAILED)
}

const NOT_THE_PROTOCOL: &[&str] = &[
    crate::session::ENDLESS_LOGIN,
    "unknown message tag",
    "unknown authentication tag",
    "invalid message length",
    "failed to fill whole buffer",
    "unexpected message from server",
];

fn of_tls(error: &io::Error) -> &'static Diagnosis {
    use CertificateError::*;

    if error.kind() == io::ErrorKind::InvalidInput {
        return &TLS_NAME;
    }
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(reason)) = cause else {
        return &TLS_FAILED;
    };
    match reason {
        // BadSignature means a root of the same name with another key, which is no trusted issuer.
        UnknownIssuer | BadSignature => &ISSUER_UNKNOWN,
        Expired | ExpiredContext { .. } => &EXPIRED,
        NotValidYet | NotValidYetContext { .. } => &NOT_YET_VALID,
        NotValidForName | NotValidForNameContext { .. } => &WRONG_HOST,
        Revoked => &REVOKED,
        _ => &CERTIFICATE_INVALID,
    }
}

steps! {
    // The host's name.

    NAME_UNRESOLVED = "dns-unresolved", Resolve,
        "the host's name has no address: it is misspelt, the endpoint was deleted, or this machine cannot \
         look names up",
        "compare the host in the database URL with Neon's console, and check that this machine resolves \
         other names";

    NAME_TIMEOUT = "dns-timeout", TimedOut,
        "this machine's name service does not answer",
        "check its resolver (/etc/resolv.conf) and the network; inside a container or a VPN it is often \
         another one";

    // TCP, and Unix sockets.

    TCP_REFUSED = "tcp-refused", Unreachable,
        "the machine is there, but nothing listens on that port",
        "check the port in the database URL (Neon's is 5432; over a WebSocket `https_port` counts, else 443), \
         and whether the server runs";

    TCP_TIMEOUT = "tcp-timeout", Unreachable,
        "packets go out and nothing comes back: a firewall drops them, or the address is wrong",
        "check the host in the database URL, and allow outgoing TCP to the port (Neon's is 5432): many \
         networks let only 443 through";

    TCP_UNREACHABLE = "tcp-unreachable", Unreachable,
        "the network does not lead there; with an IPv6 address, this machine may have no IPv6",
        "check the network, the VPN and the firewall";

    SOCKET_MISSING = "socket-missing", Unreachable,
        "no server has its Unix socket there",
        "check the folder and the port in the database URL, and whether the server runs";

    NOT_POSTGRES = "not-postgres", Unreachable,
        "the port is open, but what listens there does not speak Postgres",
        "check the host and the port in the database URL";

    // TLS.

    PLAIN_TEXT = "sslmode-weak", Configuration,
        "the URL means plain text, and the host's address is not on this machine: the password and the data \
         would go over the network unprotected",
        "use sslmode=verify-full in the database URL (require means the same here), or correct the host";

    TLS_UNSUPPORTED = "tls-unsupported", Tls,
        "the URL wants TLS and the server has none: it is not Neon's, or a tunnel ends there",
        "for a server on this machine use sslmode=disable with the host localhost; else switch TLS on in the \
         server";

    TLS_TIMEOUT = "tls-timeout", TimedOut,
        "the port is open, but what listens there does not speak Postgres or TLS, or hangs",
        "check the host and the port in the database URL; a firewall that lets only some protocols through \
         does this too";

    TLS_CLOSED = "tls-closed", Unavailable,
        "the connection breaks as soon as TLS begins: the server is starting or stopping, another protocol \
         or a firewall is there, or it is sslnegotiation=direct with a server before PostgreSQL 17",
        "try again; if it stays, check the host and the port, and try sslnegotiation=postgres";

    TLS_NAME = "tls-name", Tls,
        "certificates are checked against the host's name, and this is not a DNS name",
        "use the host name that Neon's console shows";

    TLS_FAILED = "tls-failed", Tls,
        "client and server find no common ground, or something in between interferes",
        "check that the host and the port are the server's own, without a proxy in between";

    ISSUER_UNKNOWN = "certificate-unknown-issuer", Tls,
        "the issuer of the host's certificate is not among the trusted roots: they are stale or missing, or \
         something in between, such as a company's proxy, shows a certificate of its own",
        "update the ca-certificates package, and for Neon leave sslrootcert out of the database URL; if a \
         proxy is meant to be there, add its root to the system's, or name it with SSL_CERT_FILE or \
         sslrootcert";

    EXPIRED = "certificate-expired", Tls,
        "the host's certificate is too old, or this machine's clock is ahead",
        "check this machine's clock first (NTP); if it is right, the server's operator must renew the \
         certificate";

    NOT_YET_VALID = "certificate-not-yet-valid", Tls,
        "the host's certificate is from the future: this machine's clock is behind",
        "set this machine's clock (NTP)";

    WRONG_HOST = "certificate-wrong-host", Tls,
        "the host's certificate is made out to other names: the URL names an alias or an address, or leads \
         to another server",
        "use the host name that Neon's console shows; if the address must be given, put it into hostaddr=… \
         beside it";

    REVOKED = "certificate-revoked", Tls,
        "the issuer of the host's certificate has withdrawn it",
        "the server's operator must replace it";

    CERTIFICATE_INVALID = "certificate-invalid", Tls,
        "the host's certificate cannot be verified",
        "check that the host and the port are the server's own, without a proxy in between";

    // The login.

    LOGIN_TIMEOUT = "login-timeout", TimedOut,
        "the server took the connection and does not answer: it is overloaded, or something in between \
         swallows the answer",
        "try again with more time; if that helps, raise connect_timeout; if it does not, restart the compute \
         in Neon's console";

    START_TIMEOUT = "login-timeout", TimedOut,
        "the password is right, but the compute does not come up: a very slow cold start, or it hangs",
        LOGIN_TIMEOUT.hint;

    TIMED_OUT = "connect-timeout", TimedOut,
        "there was no session before the time was up, most often in a cold start",
        "raise connect_timeout if cold starts take longer";

    OTHER_TARGET = "target-session-attrs", TargetSessionAttrs,
        "none of the URL's hosts is a server of the kind that target_session_attrs asks for",
        "add the other server to the database URL, or change target_session_attrs";

    BROKEN = "unavailable", Unavailable,
        "the connection broke before the session was there: the server is starting or stopping, or \
         something in between cuts connections",
        "try again; if it stays, look for a firewall or a proxy in between";

    // The pool's hook.

    AFTER_CONNECT = "after-connect", Other,
        "the login succeeded, and the pool's hook after_connect failed on the new connection",
        "go by its error: correct the hook, or what it needs of the database";

    AFTER_CONNECT_WRONG = "after-connect", Configuration,
        AFTER_CONNECT.meaning,
        AFTER_CONNECT.hint;

    // The reason is not known: it may be Neon's fault as well as the user's own.
    REFUSED = "refused", Other,
        "the server refused, for a reason that is not known here",
        "go by its words";
}
