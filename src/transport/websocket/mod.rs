//! [`WebSocket`]: Postgres's protocol in the binary frames of a WebSocket (RFC 6455).
//!
//! - `upgrade`: the request for a WebSocket, and its answer.
//! - `frames`: frames as data.
//! - `masks`: the random masks of the client's frames.
//! - `error`: [`WebSocketError`].
//!
//! Neon's proxy asks for no ping, and answers one only together with data: an idle WebSocket sends nothing.

mod error;
mod frames;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod masks;
mod upgrade;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub(crate) use self::error::WebSocketError;
use self::frames::{FrameReader, Stop, write_frame};
use self::masks::Masks;
use self::upgrade::Upgrade;
use super::below::Below;

/// A stream of bytes in the frames of a WebSocket.
///
/// The first bytes leave together with the request for the WebSocket, whose answer is checked before any byte of the
/// server is passed on: the request costs no flight.
pub(crate) struct WebSocket {
    below: Box<dyn Below>,
    /// The request whose answer is outstanding.
    upgrade: Option<Upgrade>,
    reader: FrameReader,
    masks: Masks,
    input: BytesMut,
    /// The frames that are not written yet.
    output: BytesMut,
    /// The answer to the server's last ping.
    pong: Option<Bytes>,
    /// Why the server has closed the WebSocket; `Ok` if as agreed.
    closed: Option<Result<(), WebSocketError>>,
    has_sent_close: bool,
}

impl WebSocket {
    /// Prepares a WebSocket with `host` over a stream that HTTP/1.1 may begin on. Nothing is sent before the first write.
    pub(super) fn new(below: Box<dyn Below>, host: &str) -> Self {
        let mut output = BytesMut::new();
        Self {
            below,
            upgrade: Some(Upgrade::request(host, &mut output)),
            reader: FrameReader::default(),
            masks: Masks::default(),
            input: BytesMut::new(),
            output,
            pong: None,
            closed: None,
            has_sent_close: false,
        }
    }

    /// Appends a frame with `payload`, which is written with the next flush.
    pub(crate) fn push(&mut self, payload: &[u8]) -> io::Result<()> {
        self.push_frame(OpCode::Data(Data::Binary), payload)
    }

    fn push_frame(&mut self, opcode: OpCode, payload: &[u8]) -> io::Result<()> {
        let mask = self.masks.next()?;
        write_frame(&mut self.output, opcode, payload, mask);
        Ok(())
    }

    /// Writes all frames to the stream below.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.below).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        // Reclaims the room in front of what was written, and gives back what only a large write needed.
        if self.output.try_reclaim(MOST_OUTPUT) {
            self.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits to be written, and the answer to the server's last ping behind it. A stream that fails says so
    /// when it is read.
    fn write_out(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.poll_write_out(cx)?.is_pending() {
            return Ok(());
        }
        if let Some(pong) = self.pong.take() {
            self.push_frame(OpCode::Control(Control::Pong), &pong)?;
            let _ = self.poll_write_out(cx)?;
        }
        let _ = Pin::new(&mut self.below).poll_flush(cx)?;
        Ok(())
    }

    /// Takes payload out of what was read, as far as it goes.
    fn take(&mut self, payload: &mut ReadBuf<'_>) -> Result<(), WebSocketError> {
        if let Some(upgrade) = &self.upgrade {
            if !upgrade.take_answer(&mut self.input)? {
                return Ok(());
            }
            self.upgrade = None;
        }
        loop {
            match self.reader.read(&mut self.input, payload)? {
                Stop::Full | Stop::Starved => return Ok(()),
                // Of several pings the last one needs an answer (RFC 6455, section 5.5.3).
                Stop::Ping(body) => self.pong = Some(body),
                Stop::Close(reason) => {
                    self.closed = Some(close_result(reason));
                    return Ok(());
                }
            }
        }
    }

    /// Returns how the stream ends if the one below has ended.
    fn end(&self) -> io::Result<()> {
        match self.upgrade {
            Some(_) => Err(WebSocketError::Cut.into()),
            // Neon's proxy ends a failed login without a Close frame, behind its error.
            None => Ok(()),
        }
    }
}

/// Returns whether a WebSocket was closed as agreed: normally, or because the server goes away.
fn close_result(reason: Option<(u16, String)>) -> Result<(), WebSocketError> {
    match reason {
        None | Some((1000 | 1001, _)) => Ok(()),
        Some((code, reason)) => Err(WebSocketError::Closed {
            code,
            reason: match (reason.is_empty(), code) {
                (false, _) => reason,
                (true, 1009) => "a message is too big".to_owned(),
                (true, 1011) => "an unexpected condition".to_owned(),
                (true, 1012) => "the service restarts".to_owned(),
                (true, 1013) => "try again later".to_owned(),
                (true, _) => "without a reason".to_owned(),
            },
        }),
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            if this.closed.is_none() {
                if let Err(error) = this.take(buf) {
                    this.closed = Some(Err(error));
                }
            }
            // What came in front of the end is passed on first.
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match &this.closed {
                Some(Ok(())) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(error.clone().into())),
                None => {}
            }
            if this.pong.is_some() || !this.output.is_empty() {
                let _ = this.write_out(cx);
            }
            this.input.reserve(CHUNK);
            let read = ready!(poll_read_buf(
                Pin::new(&mut this.below),
                cx,
                &mut this.input
            ));
            match read {
                Ok(0) => return Poll::Ready(this.end()),
                Ok(_) => {}
                // TLS without close_notify: messages have lengths, so that the protocol inside notices a cut.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(this.end());
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.output.len() >= MOST_OUTPUT {
            ready!(self.poll_write_out(cx))?;
        }
        let payload = &buf[..buf.len().min(LONGEST_FRAME)];
        self.push(payload)?;
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.below).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_sent_close, true) {
            self.push_frame(OpCode::Control(Control::Close), &NORMAL)?;
        }
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.below).poll_shutdown(cx)
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

/// How many bytes are read at a time.
const CHUNK: usize = 16 * 1024;
/// How much payload a frame has at most, so that the first frames leave while others are made.
const LONGEST_FRAME: usize = 32 * 1024;
/// How many bytes of frames may wait to be written before a writer has to wait.
const MOST_OUTPUT: usize = 64 * 1024;
/// The body of a Close frame: code 1000, a normal end.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
