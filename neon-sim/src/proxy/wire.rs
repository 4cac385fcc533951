//! What the code behind the handshake needs of a client's stream, whatever carries it.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::link::Link;

/// A client's stream of PostgreSQL's protocol.
///
/// Shutting it down ends it in the orderly way of every layer; shutting down its link ends it without their farewells.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// Returns the connection below all layers.
    fn link(&mut self) -> &mut Link;

    /// Leaves the layers out from now on.
    fn into_link(self) -> Link;
}

impl Wire for TlsStream<Link> {
    fn link(&mut self) -> &mut Link {
        self.get_mut().0
    }

    fn into_link(self) -> Link {
        self.into_inner().0
    }
}
