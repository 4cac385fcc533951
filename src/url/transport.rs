//! [`TransportMode`]: how bytes reach the server.

use std::fmt;
use std::str::FromStr;

use super::error::UrlError;
use super::host::Host;
use super::tls::{ChannelBinding, Encryption};

/// `transport`: how bytes reach the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportMode {
    /// Postgres's protocol over TCP, to the port of the URL.
    #[default]
    Tcp,
    /// Postgres's protocol in a WebSocket (RFC 6455) over TLS, to port 443, which most firewalls let through. The server
    /// is Neon's proxy, or one that does the same.
    ///
    /// Needs the feature `websocket`. The server asks for the password itself, within the verified TLS, so that
    /// `channel_binding=require` cannot hold.
    WebSocket,
    /// TCP, and the WebSocket if TCP has not connected within 1.2 s, or is refused. What has connected is tried first for
    /// ten minutes.
    ///
    /// Needs the feature `websocket`.
    Auto,
}

impl TransportMode {
    const KEY: &str = "transport";
    const EXPECTED: &str = "tcp, websocket or auto";

    fn value(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
            Self::Auto => "auto",
        }
    }

    /// Checks that the mode fits the other parts of a URL.
    pub(super) fn check(self, hosts: &[Host], encryption: &Encryption) -> Result<(), UrlError> {
        if self == Self::Tcp {
            return Ok(());
        }
        if cfg!(not(feature = "websocket")) {
            return Err(UrlError::MissingFeature {
                parameter: Self::KEY,
                value: self.value(),
                feature: "websocket",
            });
        }
        if hosts.iter().any(Host::is_unix) {
            return Err(UrlError::InvalidValue {
                key: Self::KEY,
                expected: "tcp or left out if the host is a Unix socket's folder",
            });
        }
        match encryption {
            Encryption::Tls {
                channel_binding: ChannelBinding::Require,
                ..
            } => Err(UrlError::ChannelBinding {
                transport: self.value(),
            }),
            _ => Ok(()),
        }
    }
}

/// Displays as the value of `transport`.
impl fmt::Display for TransportMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.value())
    }
}

/// Reads the value of `transport`.
impl FromStr for TransportMode {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "websocket" => Ok(Self::WebSocket),
            "auto" => Ok(Self::Auto),
            _ => Err(UrlError::InvalidValue {
                key: Self::KEY,
                expected: Self::EXPECTED,
            }),
        }
    }
}
