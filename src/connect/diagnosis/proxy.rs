//! The failures of a proxy on the way to port 443.

use super::entry::{Diagnosis, steps};
use crate::transport::ProxyError;

/// Returns the diagnosis of a proxy that opens no tunnel.
pub(super) fn of_proxy(error: &ProxyError) -> &'static Diagnosis {
    match error {
        ProxyError::Credentials { .. } => &PROXY_CREDENTIALS,
        ProxyError::Scheme(_) | ProxyError::NotHttp | ProxyError::Unreadable(_) => &PROXY_UNKNOWN,
        ProxyError::Tls(_) => &PROXY_TLS,
        ProxyError::Refused { status, .. } if *status < 500 => &PROXY_REFUSED,
        ProxyError::Refused { .. }
        | ProxyError::Closed
        | ProxyError::Io(_)
        | ProxyError::Unreached(_) => &PROXY_UNREACHABLE,
    }
}

steps! {
    PROXY_CREDENTIALS = "proxy-credentials", Forbidden,
        "the HTTP proxy on the way to port 443 lets nobody through without a user name and a password, or \
         refuses these",
        "put them into HTTPS_PROXY: http://user:password@proxy:port (special characters are percent-encoded)";

    PROXY_REFUSED = "proxy-refused", Forbidden,
        "the HTTP proxy on the way to port 443 does not let this machine reach the database's host",
        "have its administrator allow CONNECT to the host and port 443; if no proxy is needed for it, name the \
         host in NO_PROXY";

    PROXY_UNREACHABLE = "proxy-unreachable", Unreachable,
        "the HTTP proxy on the way to port 443 is overloaded, or cannot reach the database's host",
        "check HTTPS_PROXY, and whether the proxy reaches other hosts";

    PROXY_TLS = "proxy-tls", Tls,
        "the HTTP proxy's own certificate is not trusted, or what listens there does not speak TLS",
        "give its root by SSL_CERT_FILE, or write http:// in HTTPS_PROXY if the proxy speaks plain HTTP";

    PROXY_UNKNOWN = "proxy-unknown", Configuration,
        "HTTPS_PROXY or ALL_PROXY names something that is no HTTP proxy",
        "write http://proxy:port or https://proxy:port; name the database's host in NO_PROXY if no proxy is \
         needed for it";
}
