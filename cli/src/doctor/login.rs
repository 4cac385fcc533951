//! One login as the pool makes it, watched from between TLS and tokio-postgres.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use diesel_neon::{DatabaseUrl, Diagnosis};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::network::{Address, Stream};

/// A session, and what its server said unasked.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) time_zone: Option<String>,
}

pub(crate) enum LoginError {
    /// The way to the server was there a moment ago.
    Io(io::Error),
    Postgres(tokio_postgres::Error),
}

impl LoginError {
    pub(crate) fn diagnosis(&self) -> &'static Diagnosis {
        match self {
            Self::Io(error) => Diagnosis::of(error),
            Self::Postgres(error) => Diagnosis::of(error),
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Io(error) => error.to_string(),
            Self::Postgres(error) => match error.as_db_error() {
                Some(db) => db.message().to_owned(),
                None => crate::with_causes(error),
            },
        }
    }

    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Io(_) => None,
            Self::Postgres(error) => Some(error.code()?.code()),
        }
    }
}

/// Makes the sessions of one endpoint.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) address: Address,
    pub(crate) host: String,
    pub(crate) config: Config,
    pub(crate) tls: Option<ClientConfig>,
}

impl Login {
    pub(crate) fn new(
        url: &DatabaseUrl,
        address: Address,
        host: String,
        tls: Option<ClientConfig>,
    ) -> Self {
        let mut config = url.to_tokio_postgres();
        if tls.is_none() {
            // The "TLS" is then a stream that only watches.
            config
                .ssl_mode(SslMode::Require)
                .ssl_negotiation(SslNegotiation::Direct);
        }
        Self {
            address,
            host,
            config,
            tls,
        }
    }

    /// What happens is noted in `tap`, also where this is given up in the middle.
    pub(crate) async fn run(&self, tap: &Tap) -> Result<Session, LoginError> {
        let tls = match &self.tls {
            Some(config) => {
                let mut tls = MakeRustlsConnect::new(config.clone());
                let tls = MakeTlsConnect::<Box<dyn Stream>>::make_tls_connect(&mut tls, &self.host);
                Some(tls.map_err(io::Error::other).map_err(LoginError::Io)?)
            }
            None => None,
        };
        let stream = self.address.open().await.map_err(LoginError::Io)?;
        let connector = Connector {
            tls,
            tap: tap.clone(),
        };
        let (client, connection) = self
            .config
            .connect_raw(stream, connector)
            .await
            .map_err(LoginError::Postgres)?;
        let time_zone = connection.parameter("TimeZone").map(str::to_owned);
        tokio::spawn(async move {
            // Whoever asks something hears of its end.
            let _ = connection.await;
        });
        Ok(Session { client, time_zone })
    }
}

/// What a login shows on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How the server wanted to know who it is.
    pub(crate) method: Option<String>,
    pub(crate) authenticated: bool,
    asked: Option<Instant>,
    round_trip: Option<Duration>,
    /// From the client's last word to the first ReadyForQuery.
    pub(crate) started_in: Option<Duration>,
    unread: Vec<u8>,
}

impl Seen {
    /// A login that is this much slower than a round trip has woken the compute: the pool's measure.
    pub(crate) fn was_cold(&self) -> bool {
        let round_trip = self.round_trip.unwrap_or_default();
        self.started_in
            .is_some_and(|waited| waited >= COLD.saturating_add(round_trip))
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.method.as_deref() == Some("SCRAM-SHA-256-PLUS")
    }

    fn is_done(&self) -> bool {
        self.started_in.is_some()
    }

    fn sent(&mut self, bytes: &[u8]) {
        if self.is_done() {
            return;
        }
        self.asked = Some(Instant::now());
        // SASLInitialResponse begins with the mechanism that the client has chosen.
        if let (Some(b'p'), Some(rest)) = (bytes.first(), bytes.get(5..)) {
            let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            if name.starts_with(b"SCRAM-") {
                self.method = Some(String::from_utf8_lossy(name).into_owned());
            }
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        if self.is_done() {
            return;
        }
        self.unread.extend(bytes);
        while let Some((tag, body, length)) = message(&self.unread) {
            let waited = self.asked.map(|asked| asked.elapsed()).unwrap_or_default();
            match tag {
                b'R' => {
                    self.round_trip = Some(self.round_trip.unwrap_or(waited).min(waited));
                    match body {
                        [0, 0, 0, 0, ..] => self.authenticated = true,
                        [0, 0, 0, 3, ..] => self.method = Some("cleartext password".to_owned()),
                        [0, 0, 0, 5, ..] => self.method = Some("MD5".to_owned()),
                        _ => {}
                    }
                }
                b'Z' => {
                    self.started_in = Some(waited);
                    self.unread = Vec::new();
                    return;
                }
                _ => {}
            }
            self.unread.drain(..length);
        }
    }
}

const COLD: Duration = Duration::from_millis(100);

/// The first message, if all of it is there: its type, its body, its length with both.
fn message(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (tag, rest) = bytes.split_first()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize + 1;
    let body = bytes.get(5..length)?;
    Some((*tag, body, length))
}

/// Shared between the stream and whoever asks.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Seen>>);

impl Tap {
    pub(crate) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Box<dyn Stream>>>::TlsConnect;
type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Box<dyn Stream>>>::Stream;

struct Connector {
    tls: Option<RustlsConnect>,
    tap: Tap,
}

impl TlsConnect<Box<dyn Stream>> for Connector {
    type Stream = Tapped;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Tapped>> + Send>>;

    fn connect(self, stream: Box<dyn Stream>) -> Self::Future {
        Box::pin(async move {
            let inner = match self.tls {
                Some(tls) => Inner::Tls(Box::new(tls.connect(stream).await?)),
                None => Inner::Plain(stream),
            };
            Ok(Tapped {
                inner,
                tap: self.tap,
            })
        })
    }
}

struct Tapped {
    inner: Inner,
    tap: Tap,
}

enum Inner {
    Plain(Box<dyn Stream>),
    Tls(Box<RustlsStream>),
}

impl Inner {
    fn stream(&mut self) -> Pin<&mut dyn Stream> {
        match self {
            Self::Plain(stream) => Pin::new(&mut **stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

impl TlsStream for Tapped {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.inner {
            Inner::Plain(_) => ChannelBinding::none(),
            Inner::Tls(stream) => stream.channel_binding(),
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.inner.stream().poll_read(cx, buf))?;
        self.tap.lock().received(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.inner.stream().poll_write(cx, buf))?;
        self.tap.lock().sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.stream().poll_shutdown(cx)
    }
}
