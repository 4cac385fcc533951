//! [`DialError`]: why no stream to a server came about.

use std::io;

use super::address::Address;
use crate::url::UrlError;

/// Why no stream to a server came about.
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
    /// Plain text must not go to the address that a name has led to.
    #[error("cannot connect to {name}")]
    Forbidden {
        name: String,
        #[source]
        source: UrlError,
    },
    /// The server answered the request for TLS with a refusal.
    #[error("the server at {0} does not support TLS")]
    NoTls(Address),
    /// The server answered the request for TLS with an error, which nobody could vouch for and is not read.
    #[error(
        "the server at {0} answered the request for TLS with an error: it has no room for another \
         connection, or is starting or stopping"
    )]
    Refused(Address),
    /// No Postgres answers like that.
    #[error("what answers at {0} is not a Postgres server")]
    NotPostgres(Address),
    /// The server went away in the middle of the handshake.
    #[error("the server at {address} closed the connection during the TLS handshake")]
    Closed {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// The certificate is not trusted, or the handshake failed otherwise.
    #[error("the TLS handshake with {address} failed")]
    Tls {
        address: Address,
        #[source]
        source: io::Error,
    },
}
