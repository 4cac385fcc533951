//! [`Below`]: the stream below HTTP.

use tokio::io::{AsyncRead, AsyncWrite};

/// The stream below HTTP, or below a WebSocket.
pub(crate) trait Below: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Below for S {}
