//! What a [`Pipeline`] writes.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::error::connection_lost;
use super::input::CHUNK;
use super::pending::PendingRequest;
use super::pipeline::Pipeline;
use crate::protocol::ServerError;

impl Pipeline {
    /// Writes as much of the output as the stream takes. If the server has closed its end, the error is left to reading,
    /// which comes to an end for certain, and may find the server's reason.
    #[inline]
    pub(super) fn write(&mut self) -> Result<(), Box<ServerError>> {
        self.is_write_due = false;
        if self.output.is_empty() && !self.unflushed {
            return Ok(());
        }
        self.write_output()
    }

    /// Adds a request that consists of these `parts`; returns its ID.
    pub(super) fn push<const N: usize>(
        &mut self,
        request: PendingRequest,
        parts: [&[u8]; N],
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let len = parts.iter().map(|part| part.len()).sum();
        let end = if self.may_send(len) {
            self.output.reserve(len);
            for part in parts {
                self.output.extend_from_slice(part);
            }
            self.output_end()
        } else {
            self.held.push_back(parts.concat());
            u64::MAX
        };
        self.requests.push(PendingRequest { id, end, ..request });
        id
    }

    /// Returns where the output ends in all bytes of the stream.
    fn output_end(&self) -> u64 {
        self.written + self.output.len() as u64
    }

    /// Returns whether a part of request `id` is yet to be written.
    pub(super) fn is_unwritten(&self, id: u64) -> bool {
        let end = self.requests.end(id);
        !self.output.is_empty() && end.is_some_and(|end| end > self.written)
    }

    /// Returns whether a request is unanswered that was sent.
    pub(super) fn is_awaited(&self) -> bool {
        self.requests.outstanding_len() > self.held.len()
    }

    /// Returns whether a new request of `len` bytes may be sent now: in its turn, and not behind more than the pooler knows to
    /// keep together.
    #[inline]
    fn may_send(&self, len: usize) -> bool {
        self.held.is_empty() && self.may_pipeline(len)
    }

    fn may_pipeline(&self, len: usize) -> bool {
        let unanswered = self
            .output_end()
            .saturating_sub(self.requests.answered_end());
        !self.is_awaited() || self.pipelining.allows(unanswered, len)
    }

    /// Writes the requests that are held back and may be sent by now.
    #[cold]
    pub(super) fn release(&mut self) -> Result<(), Box<ServerError>> {
        while let Some(request) = self.held.front() {
            // A cancel request that is under way would cancel the request.
            if self.is_cancelling() || !self.may_pipeline(request.len()) {
                break;
            }
            self.output.extend_from_slice(request);
            self.held.pop_front();
            self.requests.set_end(self.held.len(), self.output_end());
        }
        self.write()
    }

    fn write_output(&mut self) -> Result<(), Box<ServerError>> {
        let Err(error) = self.try_write() else {
            return Ok(());
        };
        self.output = BytesMut::new();
        self.unflushed = false;
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Ok(()),
            _ => Err(Box::new(connection_lost(&error))),
        }
    }

    /// Writes without reading: there is no room for another message.
    pub(super) fn write_only(&mut self) {
        if let Err(cause) = self.write() {
            self.set_lost(*cause);
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        let mut cx = Context::from_waker(&self.waker);
        let mut transport = Pin::new(&mut channel.transport);
        while !self.output.is_empty() {
            match transport.as_mut().poll_write(&mut cx, &self.output)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.output.advance(written);
                    self.written += written as u64;
                    self.unflushed = true;
                    // The wait for a response begins behind a request that the stream takes at once.
                    if mem::take(&mut self.is_write_blocked) {
                        self.status.mark_write();
                    }
                }
                Poll::Pending => {
                    self.is_write_blocked = true;
                    return Ok(());
                }
            }
        }
        // TLS may buffer what it has taken.
        self.unflushed = transport.poll_flush(&mut cx)?.is_pending();
        Ok(())
    }

    /// Frees the memory that only a large request or response needed.
    pub(super) fn shrink(&mut self) {
        self.input.shrink();
        if self.output.is_empty() && self.output.capacity() > 2 * CHUNK {
            self.output = BytesMut::new();
        }
    }
}
