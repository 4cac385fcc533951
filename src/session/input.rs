//! [`Input`]: splits the bytes that were read into messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::protocol::{Malformed, Message, Next};

/// Holds the bytes that were read and not yet taken as messages.
#[derive(Debug)]
pub(super) struct Input(BytesMut);

impl Input {
    pub(super) fn new(read: BytesMut) -> Self {
        Self(read)
    }

    pub(super) fn next(&mut self) -> Result<Next, Malformed> {
        Message::take(&mut self.0)
    }

    /// Reads towards a message that lacks `missing` bytes. 0 bytes are the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncRead>,
        missing: usize,
    ) -> Poll<io::Result<usize>> {
        // The length in a header is only a claim: memory grows with the bytes that have arrived.
        let room = missing.clamp(CHUNK, CHUNK.max(self.0.len()));
        self.0.reserve(room);
        poll_read_buf(stream, cx, &mut self.0)
    }

    /// Frees the memory that only a large message needed.
    pub(super) fn shrink(&mut self) {
        if self.0.is_empty() && self.0.capacity() > 2 * CHUNK {
            self.0 = BytesMut::new();
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// How many bytes are read at a time.
pub(super) const CHUNK: usize = 8 * 1024;
