//! [`DialError`]: why a stream to a server could not be opened.

use std::error::Error;
use std::io;
use std::sync::Arc;

use super::address::Address;
#[cfg(any(feature = "http", feature = "websocket"))]
use super::proxy::ProxyError;
use crate::url::UrlError;

/// A stream to a server could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name of a host has no address.
    #[error("cannot resolve {name}")]
    Resolve {
        name: String,
        #[source]
        source: io::Error,
    },
    /// The address does not answer, or refuses.
    #[error("cannot connect to {address}")]
    Connect {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// Plain text must not go to the address that the name resolves to.
    #[error("cannot connect to {name}")]
    Forbidden {
        name: String,
        #[source]
        source: UrlError,
    },
    /// The server answered the request for TLS with a refusal.
    #[error("the server at {0} does not support TLS")]
    NoTls(Address),
    /// The server answered the request for TLS with an error message, which is not authentic and is not read.
    #[error(
        "the server at {0} answered the request for TLS with an error: it has no room for another \
         connection, or is starting or stopping"
    )]
    Refused(Address),
    /// The answer to the request for TLS is none that Postgres gives.
    #[error("the server at {0} is not a Postgres server")]
    NotPostgres(Address),
    /// A proxy on the way opens no tunnel.
    #[cfg(any(feature = "http", feature = "websocket"))]
    #[error("the proxy {proxy} opens no tunnel to {name}")]
    Proxy {
        proxy: String,
        name: String,
        #[source]
        source: ProxyError,
    },
    /// The stream ended in the middle of the handshake.
    #[error("the server at {address} closed the connection during the TLS handshake")]
    Closed {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// The certificate is not trusted, or the handshake failed for another reason.
    #[error("the TLS handshake with {address} failed")]
    Tls {
        address: Address,
        #[source]
        source: io::Error,
    },
}

impl DialError {
    /// Returns the cause, if it tells more than the error itself.
    pub(crate) fn into_source(self) -> Option<Arc<dyn Error + Send + Sync>> {
        match self {
            Self::Resolve { source, .. }
            | Self::Connect { source, .. }
            | Self::Tls { source, .. } => Some(Arc::new(source)),
            Self::Forbidden { source, .. } => Some(Arc::new(source)),
            #[cfg(any(feature = "http", feature = "websocket"))]
            Self::Proxy { source, .. } => Some(Arc::new(source)),
            // The cause of the former is the end of the stream.
            Self::Closed { .. } | Self::NoTls(_) | Self::Refused(_) | Self::NotPostgres(_) => None,
        }
    }
}
