//! Streams to a server: addresses are raced, sockets set up, and TLS negotiated.
//!
//! Every stream is opened by [`Dialler`]: for logins by [`dial`](Dialler::dial), for cancel requests by
//! [`redial`](Dialler::redial).
//!
//! - `dial`: [`Dialler`], and the way to one address.
//! - `resolve`, `postponed`: the addresses of a host, and which of them are tried last.
//! - `race`: when the next address or host is tried, and which session wins.
//! - `https`, `proxy`, `http_head`, `below`, `websocket`: the way over port 443.
//! - `early`, `pending`: what a session sends before its login is answered, and its stream until then.
//! - `ways`: when the other way is tried, if the URL leaves the choice.
//! - `socket`, `tls`, `client_config`: what is set on a stream, and how TLS is negotiated.
//! - `inspect`: a server's certificates, trusted or not, for the doctor.
//! - `timer`: bounds on any runtime.

mod address;
#[cfg(any(feature = "http", feature = "websocket"))]
mod below;
mod client_config;
mod dial;
mod early;
mod error;
#[cfg(all(feature = "websocket", any(test, fuzzing)))]
pub(crate) mod fuzzing;
#[cfg(any(feature = "http", feature = "websocket"))]
mod http_head;
#[cfg(any(feature = "http", feature = "websocket"))]
mod https;
mod inspect;
mod pending;
mod postponed;
#[cfg(any(feature = "http", feature = "websocket"))]
mod proxy;
mod race;
mod resolve;
mod socket;
mod timer;
mod tls;
mod ways;
#[cfg(feature = "websocket")]
mod websocket;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

pub use self::address::{Address, Peer};
pub use self::client_config::TlsError;
pub(crate) use self::dial::Dialler;
pub(crate) use self::error::DialError;
#[cfg(feature = "http")]
pub(crate) use self::https::HttpStream;
pub use self::inspect::TlsSession;
#[cfg(any(feature = "http", feature = "websocket"))]
pub(crate) use self::proxy::ProxyError;
pub(crate) use self::race::{AttemptFailure, Progress, Stage, Verdict};
pub(crate) use self::timer::Timer;
pub(crate) use self::tls::Negotiated;
#[cfg(feature = "websocket")]
pub(crate) use self::websocket::{WebSocket, WebSocketError};

/// What is written to a session before its login is answered.
pub(crate) type Early = early::Early<Transport>;
/// An attempt's part in an [`Early`].
pub(crate) type EarlyClaim = early::EarlyClaim<Transport>;
/// The stream of a session whose login is under way.
pub(crate) type PendingTransport = pending::PendingTransport<Transport>;

/// A stream of bytes to one server.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<tls::Stream>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    #[cfg(feature = "websocket")]
    WebSocket(Box<WebSocket>),
    /// A stream that HTTP begins on.
    #[cfg(feature = "http")]
    Http(HttpStream),
    /// Becomes one of the others once its login has succeeded.
    Pending(Box<PendingTransport>),
}

impl Transport {
    /// Becomes the stream itself if a login was under way and has succeeded.
    fn settle(&mut self) {
        if let Self::Pending(pending) = self {
            if let Some(transport) = pending.take() {
                *self = transport;
            }
        }
    }

    /// Appends `message` to the bytes that were written, to leave with them, if the server asks for the password itself
    /// whatever happens. Returns false if it may not.
    #[cfg(feature = "websocket")]
    pub(crate) fn push_password(&mut self, message: &[u8]) -> io::Result<bool> {
        match self {
            Self::WebSocket(stream) => stream.push(message).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Notes that nobody waits any more for something that was written. If its login is under way, no later attempt to log
    /// in sends it.
    pub(crate) fn give_up(&self) {
        if let Self::Pending(pending) = self {
            pending.give_up();
        }
    }

    /// Sends `last` without waiting, and closes the stream in an orderly way.
    pub(crate) fn close_with(&mut self, last: &[u8]) {
        // An idle stream has room for a few bytes; on a full one the message is lost, which does no harm.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut *self).poll_write(&mut cx, last);
        let _ = Pin::new(&mut *self).poll_shutdown(&mut cx);
    }
}

impl From<PendingTransport> for Transport {
    fn from(pending: PendingTransport) -> Self {
        Self::Pending(Box::new(pending))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Tls(_) => "Tls",
            #[cfg(unix)]
            Self::Unix(_) => "Unix",
            #[cfg(feature = "websocket")]
            Self::WebSocket(_) => "WebSocket",
            #[cfg(feature = "http")]
            Self::Http(_) => "Http",
            Self::Pending(_) => "Pending",
        })
    }
}

impl TlsStream for Transport {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Tls(stream) => stream.channel_binding(),
            _ => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.settle();
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => match Pin::new(stream).poll_read(cx, buf) {
                // A FIN without close_notify is a plain end of the stream: messages have lengths, so that the
                // protocol notices if a man in the middle has cut one off.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                read => read,
            },
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "http")]
            Self::Http(stream) => Pin::new(&mut stream.below).poll_read(cx, buf),
            Self::Pending(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "http")]
            Self::Http(stream) => Pin::new(&mut stream.below).poll_write(cx, buf),
            Self::Pending(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "http")]
            Self::Http(stream) => Pin::new(&mut stream.below).poll_flush(cx),
            Self::Pending(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "http")]
            Self::Http(stream) => Pin::new(&mut stream.below).poll_shutdown(cx),
            Self::Pending(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
