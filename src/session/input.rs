//! [`Input`]: what has been read, message by message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::protocol::{Malformed, Message, Next};

/// Holds what has arrived of the next message.
#[derive(Debug)]
pub(super) struct Input(BytesMut);

impl Input {
    pub(super) fn new(read: BytesMut) -> Self {
        Self(read)
    }

    pub(super) fn next(&mut self) -> Result<Next, Malformed> {
        Message::take(&mut self.0)
    }

    /// Reads towards a message that lacks so many bytes; 0 is the stream's end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncRead>,
        missing: usize,
    ) -> Poll<io::Result<usize>> {
        // A length is only a claim: memory grows with what has arrived.
        let room = missing.clamp(CHUNK, CHUNK.max(self.0.len()));
        self.0.reserve(room);
        poll_read_buf(stream, cx, &mut self.0)
    }

    /// Gives memory back that only a large message needed.
    pub(super) fn rest(&mut self) {
        if self.0.is_empty() && self.0.capacity() > 2 * CHUNK {
            self.0 = BytesMut::new();
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// How much is read at a time.
pub(super) const CHUNK: usize = 8 * 1024;
