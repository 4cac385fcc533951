//! The ways into the proxy.

use crate::protocol::scram::VIOLATION;

/// The way that a client has come, with the host name that it has asked for.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// TLS on PostgreSQL's port; the name is that of SNI.
    Tls(Option<String>),
    /// A WebSocket; the name is that of the Host header.
    WebSocket(Option<String>),
}

impl Door {
    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::Tls(host) | Self::WebSocket(host) => host.as_deref(),
        }
    }

    /// Returns whether a client proves that it knows the password, and does not say it.
    pub(super) fn asks_for_proof(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Returns the words for a password that is too long.
    pub(super) fn too_long(&self) -> &'static str {
        match self {
            Self::Tls(_) => VIOLATION,
            Self::WebSocket(_) => "Internal error",
        }
    }
}
