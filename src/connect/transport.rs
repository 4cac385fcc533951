//! How something of ours gets under tokio-postgres: as its TLS connector.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A connector whose streams are made into something else by `wrap`, with TLS inside or without.
pub(crate) struct Wrapping<W> {
    tls: Option<MakeRustlsConnect>,
    wrap: W,
}

impl<W> Wrapping<W> {
    pub(crate) fn new(tls: Option<MakeRustlsConnect>, wrap: W) -> Self {
        Self { tls, wrap }
    }
}

type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl<W, S> MakeTlsConnect<Socket> for Wrapping<W>
where
    W: Fn(Transport) -> S + Clone + Send + 'static,
    S: TlsStream + Unpin,
{
    type Stream = S;
    type TlsConnect = WrappingConnect<W>;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Self::TlsConnect> {
        let tls = match &mut self.tls {
            Some(tls) => {
                let tls = MakeTlsConnect::<Socket>::make_tls_connect(tls, domain);
                Some(tls.map_err(io::Error::other)?)
            }
            None => None,
        };
        Ok(WrappingConnect {
            tls,
            wrap: self.wrap.clone(),
        })
    }
}

pub(crate) struct WrappingConnect<W> {
    tls: Option<RustlsConnect>,
    wrap: W,
}

impl<W, S> TlsConnect<Socket> for WrappingConnect<W>
where
    W: Fn(Transport) -> S + Send + 'static,
    S: TlsStream + Unpin,
{
    type Stream = S;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let Self { tls, wrap } = self;
        Box::pin(async move {
            let transport = match tls {
                Some(tls) => Transport::Tls(Box::new(tls.connect(stream).await?)),
                None => Transport::Plain(stream),
            };
            Ok(wrap(transport))
        })
    }
}

/// What a connection's bytes travel on.
pub(crate) enum Transport {
    Plain(Socket),
    Tls(Box<RustlsStream>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Tls(_) => "Tls",
            #[cfg(unix)]
            Self::Unix(_) => "Unix",
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
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
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
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
