//! [`PendingTransport`]: the stream of a session whose login is under way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

use super::early::{Early, Opened};

/// A stream to a server that a task logs in to. Keeps what is written until the login takes it, and reads nothing before
/// the login has succeeded.
pub(crate) struct PendingTransport<T> {
    early: Arc<Early<T>>,
    opened: Option<Opened<T>>,
    /// Ends the login with the stream.
    _task: AbortOnDropHandle<()>,
}

impl<T: AsyncWrite + Unpin> PendingTransport<T> {
    pub(crate) fn new(early: Arc<Early<T>>, task: AbortOnDropHandle<()>) -> Self {
        Self {
            early,
            opened: None,
            _task: task,
        }
    }

    /// Notes that nobody waits any more for something that was written.
    pub(super) fn give_up(&self) {
        self.early.give_up();
    }

    /// Returns the stream itself, once nothing is kept here any more.
    pub(super) fn take(&mut self) -> Option<T> {
        let is_empty = |opened: &mut Opened<T>| opened.read.is_empty() && opened.unsent.is_empty();
        self.opened.take_if(is_empty).map(|opened| opened.transport)
    }

    /// Returns the stream, or how the login has ended, once it has.
    fn opened(&mut self) -> Option<io::Result<&mut Opened<T>>> {
        if self.opened.is_none() {
            self.opened = self.early.take_outcome()?;
        }
        let opened = self.opened.as_mut();
        Some(opened.ok_or_else(|| io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Opened<T>>> {
        if self.opened.is_none() && self.early.register_session(cx) {
            return Poll::Pending;
        }
        self.opened().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for PendingTransport<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let opened = ready!(self.poll_opened(cx))?;
        match opened.poll_send(cx) {
            // Its own error is left to whoever writes; what is to be read may be the server's reason.
            Poll::Ready(Ok(())) => {
                let _ = Pin::new(&mut opened.transport).poll_flush(cx);
            }
            Poll::Ready(Err(_)) => opened.unsent.clear(),
            Poll::Pending => {}
        }
        if opened.read.is_empty() {
            return Pin::new(&mut opened.transport).poll_read(cx, buf);
        }
        let now = opened.read.len().min(buf.remaining());
        buf.put_slice(&opened.read.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PendingTransport<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(opened) = self.opened() {
            let opened = opened?;
            ready!(opened.poll_send(cx))?;
            return Pin::new(&mut opened.transport).poll_write(cx, buf);
        }
        match self.early.keep(buf) {
            Some(kept @ 1..) => return Poll::Ready(Ok(kept)),
            Some(0) if buf.is_empty() => return Poll::Ready(Ok(0)),
            // The end of the login makes room.
            _ => ready!(self.poll_opened(cx))?,
        };
        self.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(opened) = self.opened() else {
            return Poll::Ready(Ok(()));
        };
        let opened = opened?;
        ready!(opened.poll_send(cx))?;
        Pin::new(&mut opened.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.opened() {
            Some(opened) => Pin::new(&mut opened?.transport).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_last_words_of_a_server_are_read_though_nothing_can_be_written() {
        let (client, mut server) = duplex(1024);
        server.write_all(b"FATAL").await.unwrap();
        drop(server);
        let early = Arc::new(Early::default());
        early.keep(b"SELECT 1");
        early.succeed(client, BytesMut::new());
        let task = AbortOnDropHandle::new(tokio::spawn(async {}));
        let mut pending = PendingTransport::new(early, task);
        let mut read = Vec::new();
        pending.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"FATAL");
    }
}
