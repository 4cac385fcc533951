//! [`Client`]: connections to the server, and requests on them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::route::{PATH, Route, Routes};
use crate::connect::{ConnectError, HttpsConnector};
use crate::transport::{HttpStream, Transport};
use crate::util::clock::Moment;
use crate::util::error_chain::chain;
use crate::util::lock;

/// Keeps connections to the server, and sends requests on them: on one with HTTP/2, else on a few, each of which takes one
/// request at a time.
pub(super) struct Client {
    connector: HttpsConnector,
    routes: Routes,
    kept: Mutex<Kept>,
    /// Held while connecting: others wait for the same connection.
    connecting: tokio::sync::Mutex<Option<ConnectError>>,
    /// Counts the connects that have failed.
    failures: AtomicU64,
    places: Arc<Semaphore>,
    idle_timeout: Duration,
    /// How many bytes an answer may have.
    limit: usize,
}

/// The connections that are kept.
#[derive(Default)]
struct Kept {
    /// Whether the server has last chosen HTTP/1.1.
    is_http_1: bool,
    lines: Vec<Line>,
}

/// A connection, which lives as long as the runtime that it was made on.
struct Line {
    sender: Sender,
    route: Arc<Route>,
    runtime: Id,
    last_used: Moment,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no connection.
    NotConnected(ConnectError),
    /// The connection has ended, and nothing of the request was processed.
    Stale,
    /// The connection was lost behind the request.
    Lost(String),
    /// The answer is longer than it may be.
    TooLong,
}

/// The most connections with HTTP/1.1, as browsers have them.
const MOST_LINES: usize = 6;

impl Client {
    pub(super) fn new(
        connector: HttpsConnector,
        routes: Routes,
        idle_timeout: Duration,
        limit: usize,
    ) -> Self {
        Self {
            connector,
            routes,
            kept: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(MOST_LINES)),
            idle_timeout,
            limit,
        }
    }

    pub(super) fn connector(&self) -> &HttpsConnector {
        &self.connector
    }

    /// Returns the host that requests go to first, for errors.
    pub(super) fn host(&self) -> &str {
        self.routes.first_host()
    }

    /// Sends a request, and reads its answer. Sets `is_sent` once the server may process it.
    pub(super) async fn send(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        is_sent: &AtomicBool,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let (mut line, _place) = self.line().await.map_err(Trouble::NotConnected)?;
        let is_ready = match &mut line.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        };
        is_ready.map_err(|_| Trouble::Stale)?;
        let request = line.request(headers, body);
        is_sent.store(true, Ordering::Relaxed);
        let response = match &mut line.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        let response = response.map_err(|error| {
            let trouble = trouble(error);
            is_sent.store(!matches!(trouble, Trouble::Stale), Ordering::Relaxed);
            trouble
        })?;
        let status = response.status();
        let body = self.read(response.into_body()).await?;
        line.last_used = Moment::now();
        self.keep(line);
        Ok((status, body))
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Trouble> {
        let read = Limited::new(body, self.limit).collect().await;
        let read = read.map_err(|error| match error.is::<LengthLimitError>() {
            true => Trouble::TooLong,
            false => Trouble::Lost(chain(&*error)),
        });
        Ok(read?.to_bytes())
    }

    /// Returns a connection: one that is kept, or a new one. With HTTP/1.1 it takes one of a few places.
    async fn line(&self) -> Result<(Line, Option<OwnedSemaphorePermit>), ConnectError> {
        let failures = self.failures.load(Ordering::Acquire);
        let runtime = Handle::current().id();
        if let Some(line) = self.take_http_2(runtime) {
            return Ok((line, None));
        }
        let mut place = None;
        if lock(&self.kept).is_http_1 {
            // The semaphore is never closed.
            place = Arc::clone(&self.places).acquire_owned().await.ok();
            if let Some(line) = self.take_http_1(runtime) {
                return Ok((line, place));
            }
        }
        let mut last_failure = self.connecting.lock().await;
        if let Some(line) = self.take_http_2(runtime) {
            return Ok((line, None));
        }
        match &*last_failure {
            // What others have waited for has failed for all of them.
            Some(error) if self.failures.load(Ordering::Acquire) != failures => {
                return Err(error.clone());
            }
            _ => {}
        }
        match self.connect(runtime).await {
            Ok(line) => {
                *last_failure = None;
                let mut kept = lock(&self.kept);
                kept.is_http_1 = matches!(line.sender, Sender::Http1(_));
                if let Some(shared) = line.share() {
                    kept.lines.push(shared);
                }
                Ok((line, place))
            }
            Err(error) => {
                *last_failure = Some(error.clone());
                self.failures.fetch_add(1, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Returns the connection with HTTP/2 that all share.
    fn take_http_2(&self, runtime: Id) -> Option<Line> {
        let mut kept = lock(&self.kept);
        self.forget_ended(&mut kept);
        let mut lines = kept.lines.iter();
        lines.find(|line| line.runtime == runtime)?.share()
    }

    /// Takes a connection with HTTP/1.1 that has no request.
    fn take_http_1(&self, runtime: Id) -> Option<Line> {
        let mut kept = lock(&self.kept);
        self.forget_ended(&mut kept);
        let is_free = |line: &Line| line.runtime == runtime && line.share().is_none();
        let at = kept.lines.iter().position(is_free)?;
        Some(kept.lines.swap_remove(at))
    }

    /// Forgets connections that have ended, or that something in between may have forgotten.
    fn forget_ended(&self, kept: &mut Kept) {
        kept.lines
            .retain(|line| !line.is_closed() && line.last_used.elapsed() < self.idle_timeout);
    }

    /// Keeps a connection whose request was answered.
    fn keep(&self, line: Line) {
        let mut kept = lock(&self.kept);
        match &line.sender {
            Sender::Http1(_) => kept.lines.push(line),
            Sender::Http2(_) => {
                let mut lines = kept.lines.iter_mut();
                let same = lines.find(|kept| kept.runtime == line.runtime);
                if let Some(kept) = same {
                    kept.last_used = line.last_used;
                }
            }
        }
    }

    async fn connect(&self, runtime: Id) -> Result<Line, ConnectError> {
        let (stream, name) = self.connector.connect().await?;
        let route = self.routes.of(&name, &stream.host, stream.is_tls);
        let sender = Sender::open(stream).await.map_err(|error| {
            ConnectError::of_proxy(format!(
                "error communicating with the server: {}",
                chain(&error)
            ))
        })?;
        Ok(Line {
            sender,
            route,
            runtime,
            last_used: Moment::now(),
        })
    }
}

impl Sender {
    /// Begins HTTP on a stream, which a task then drives.
    async fn open(stream: HttpStream) -> hyper::Result<Self> {
        let is_http_2 = stream.is_http_2;
        let stream = TokioIo::new(Transport::Http(stream));
        if is_http_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MOST_HEADERS);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(driven(connection));
            return Ok(Self::Http2(sender));
        }
        let mut builder = http1::Builder::new();
        builder.max_header_size(MOST_HEADERS as usize);
        let (sender, connection) = builder.handshake(stream).await?;
        tokio::spawn(driven(connection));
        Ok(Self::Http1(sender))
    }
}

/// How many bytes the headers of an answer may have.
const MOST_HEADERS: u32 = 64 * 1024;

/// Drives a connection to its end: that of its last request, once nobody can send another.
async fn driven(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = chain(&error), "a connection for HTTPS has ended");
    }
}

impl Line {
    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Returns another handle of the same connection, if it takes several requests at a time.
    fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else {
            return None;
        };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            route: Arc::clone(&self.route),
            runtime: self.runtime,
            last_used: self.last_used,
        })
    }

    fn request(&self, headers: &HeaderMap, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers.clone();
        let own = request.headers_mut();
        own.insert(CONNECTION_STRING, self.route.connection_string.clone());
        *request.uri_mut() = match &self.sender {
            Sender::Http2(_) => self.route.uri.clone(),
            Sender::Http1(_) => {
                own.insert(header::HOST, self.route.host.clone());
                Uri::from_static(PATH)
            }
        };
        request
    }
}

const CONNECTION_STRING: &str = "neon-connection-string";

/// Tells whether a request that has failed may have been processed.
fn trouble(mut error: TrySendError<Request<Full<Bytes>>>) -> Trouble {
    if error.take_message().is_some() {
        return Trouble::Stale;
    }
    let error = error.into_error();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(next) = cause {
        if next.downcast_ref().is_some_and(is_unprocessed) {
            return Trouble::Stale;
        }
        cause = next.source();
    }
    Trouble::Lost(chain(&error))
}

/// Returns whether the server says that it has not processed the request (RFC 9113, section 8.7).
fn is_unprocessed(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// The headers that all requests have.
pub(super) fn common_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name, value| headers.insert(name, HeaderValue::from_static(value));
    insert("content-type", "application/json");
    insert(
        "user-agent",
        concat!("diesel-neon/", env!("CARGO_PKG_VERSION")),
    );
    insert("neon-raw-text-output", "true");
    insert("neon-array-mode", "true");
    headers
}
