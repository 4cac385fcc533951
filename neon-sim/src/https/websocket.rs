//! PostgreSQL's protocol in the binary messages of a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocket as Frames};
use tungstenite::{Error, Message};

use super::frames::Memory;
use crate::control::websocket_fault::WebSocketFault;
use crate::proxy::link::Link;
use crate::proxy::wire::Wire;

/// How many bytes Neon's proxy puts into a frame.
const FRAME: usize = 1024;
const BUFFER: usize = 16 * 1024;
/// How many bytes may wait for the connection.
const BACKLOG: usize = 64 * 1024;

/// The server's side of a WebSocket, as a stream of the bytes in its messages.
///
/// As on Neon, a pong waits for the next data.
pub(super) struct WebSocket {
    stream: TlsStream<Link>,
    frames: Frames<Memory>,
    /// The rest of a message that is being read.
    message: Bytes,
    has_ended: bool,
    fragmented: bool,
}

impl WebSocket {
    /// Returns the WebSocket of a client that has sent `read` behind its request.
    pub(super) fn new(stream: TlsStream<Link>, read: &[u8]) -> Self {
        let mut memory = Memory::default();
        memory.received.extend_from_slice(read);
        Self {
            stream,
            frames: Frames::from_raw_socket(memory, Role::Server, None),
            message: Bytes::new(),
            has_ended: false,
            fragmented: false,
        }
    }

    /// Says what Neon does not say, together with what is said next; returns whether anything may follow.
    pub(super) fn disturb(&mut self, fault: WebSocketFault) -> io::Result<bool> {
        let message = match fault {
            WebSocketFault::Ping(payload) => Message::Ping(payload.into()),
            WebSocketFault::Text(text) => Message::Text(text.into()),
            WebSocketFault::Fragmented => {
                self.fragmented = true;
                return Ok(true);
            }
            WebSocketFault::Close { code, reason } => Message::Close(Some(CloseFrame {
                code: CloseCode::from(code),
                reason: reason.into(),
            })),
            _ => return Ok(true),
        };
        let goes_on = !message.is_close();
        self.frames.write(message).map_err(broken)?;
        Ok(goes_on)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.fragmented {
            return self.frames.write(Message::binary(bytes.to_vec()));
        }
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let begin = Frame::message(first.to_vec(), OpCode::Data(Data::Binary), false);
        let end = Frame::message(rest.to_vec(), OpCode::Data(Data::Continue), true);
        self.frames.write(Message::Frame(begin))?;
        self.frames.write(Message::Frame(end))
    }

    /// Writes to the connection whatever waits for it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frames.get_ref().unsent.is_empty() {
            let unsent = &mut self.frames.get_mut().unsent;
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => unsent.advance(length),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; BUFFER];
        let mut chunk = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        let memory = self.frames.get_mut();
        memory.received.extend_from_slice(chunk.filled());
        memory.has_ended = chunk.filled().is_empty();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.message.is_empty() && !this.has_ended {
            match this.frames.read() {
                Ok(Message::Binary(message)) => this.message = message,
                Ok(Message::Text(_)) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Ok(Message::Close(_)) => {
                    this.has_ended = true;
                    // The answer; without it the client waits for nothing.
                    let _ = this.frames.flush();
                    let _ = this.poll_send(cx)?;
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.poll_receive(cx))?;
                }
                Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                ) => this.has_ended = true,
                Err(error) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = this.message.len().min(buf.remaining());
        buf.put_slice(&this.message.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.frames.get_ref().unsent.len() >= BACKLOG {
            ready!(this.poll_send(cx))?;
        }
        let taken = &buf[..buf.len().min(BACKLOG)];
        for bytes in taken.chunks(FRAME) {
            this.send(bytes).map_err(broken)?;
        }
        this.frames.flush().map_err(broken)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.frames.can_write() {
            this.frames
                .close(Some(CloseFrame {
                    code: CloseCode::Away,
                    reason: "".into(),
                }))
                .map_err(broken)?;
        }
        // An error says that it is closed already.
        let _ = this.frames.flush();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl Wire for WebSocket {
    fn link(&mut self) -> &mut Link {
        self.stream.link()
    }

    fn into_link(self) -> Link {
        self.stream.into_link()
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
