//! The bytes between a WebSocket's frames and its connection.

use std::io::{self, Read, Write};

use bytes::{Buf, BytesMut};

/// Bytes that have been received or are still to be sent, in place of a socket.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) received: BytesMut,
    /// Whether nothing more will be received.
    pub(super) has_ended: bool,
    pub(super) unsent: BytesMut,
}

impl Read for Memory {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.received.is_empty() && !self.has_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buf.len().min(self.received.len());
        self.received.copy_to_slice(&mut buf[..length]);
        Ok(length)
    }
}

impl Write for Memory {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
