//! [`Address`] and [`Peer`]: the place where a server listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

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
}
