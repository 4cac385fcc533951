//! [`Address`] and [`Peer`]: the place where a server listens, and for what.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

#[cfg(any(feature = "http", feature = "websocket"))]
use super::proxy::Proxy;
use crate::url::TransportMode;

/// The place where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// An address, and the name that the server's certificate must be for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) listener: Listener,
}

/// What listens at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Listener {
    /// Postgres, or a proxy that speaks its protocol.
    #[default]
    Postgres,
    /// A web server, or the proxy on the way to it.
    #[cfg(any(feature = "http", feature = "websocket"))]
    Https(Gateway),
}

/// The web server.
#[cfg(any(feature = "http", feature = "websocket"))]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Gateway {
    pub(super) port: u16,
    /// The proxy on the way, whose address the peer's is then.
    pub(super) proxy: Option<Proxy>,
}

impl Peer {
    /// Returns the name, or the directory of a Unix socket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns how bytes reach the server there: `Tcp` or `WebSocket`.
    pub fn transport(&self) -> TransportMode {
        match self.listener {
            Listener::Postgres => TransportMode::Tcp,
            #[cfg(any(feature = "http", feature = "websocket"))]
            Listener::Https(_) => TransportMode::WebSocket,
        }
    }
}
