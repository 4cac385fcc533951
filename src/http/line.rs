//! [`Line`]: a connection to the server, on which requests are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::route::{PATH, Route};
use crate::connect::ConnectError;
use crate::transport::{HttpStream, Transport};
use crate::util::clock::Moment;
use crate::util::error_chain::chain;

/// A connection, which lives as long as the runtime that it was made on.
pub(super) struct Line {
    sender: Sender,
    route: Arc<Route>,
    /// Whoever has a request under way holds one.
    streams: Arc<Semaphore>,
    pub(super) life: Arc<Life>,
    pub(super) last_used: Moment,
}

/// How many requests are under way on one connection: no server should allow fewer (RFC 9113, section 6.5.2). What hyper would
/// keep back itself could not be told from what was sent.
const MOST_STREAMS: usize = 100;

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What a connection has brought, which tells it from others too.
#[derive(Debug, Default)]
pub(super) struct Life {
    brought: AtomicU64,
    is_given_up: AtomicBool,
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

impl Life {
    pub(super) fn note(&self) {
        self.brought.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }

    /// Has no more requests sent on the connection.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

impl Line {
    /// Begins HTTP on a stream, which a task then drives.
    pub(super) async fn open(stream: HttpStream, route: Arc<Route>) -> hyper::Result<Self> {
        let is_http_2 = stream.is_http_2;
        let stream = TokioIo::new(Transport::Http(stream));
        let sender = if is_http_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MOST_HEADERS);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(driven(connection));
            Sender::Http2(sender)
        } else {
            let mut builder = http1::Builder::new();
            builder.max_header_size(MOST_HEADERS as usize);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(driven(connection));
            Sender::Http1(sender)
        };
        Ok(Self {
            sender,
            route,
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            life: Arc::default(),
            last_used: Moment::now(),
        })
    }

    pub(super) fn is_http_2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Returns another handle of the same connection, if it takes several requests at a time.
    pub(super) fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else {
            return None;
        };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            route: Arc::clone(&self.route),
            streams: Arc::clone(&self.streams),
            life: Arc::clone(&self.life),
            last_used: self.last_used,
        })
    }

    /// Waits until the connection takes a request, which holds what is returned until it has its answer.
    pub(super) async fn ready(&mut self) -> Result<Option<OwnedSemaphorePermit>, Trouble> {
        // The semaphore is never closed.
        let stream = Arc::clone(&self.streams).acquire_owned().await.ok();
        if self.life.is_given_up.load(Ordering::Relaxed) {
            return Err(Trouble::Stale);
        }
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        };
        ready.map(|()| stream).map_err(|_| Trouble::Stale)
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Incoming>, Trouble> {
        let request = self.request(headers, body);
        let response = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        let response = response.map_err(trouble)?;
        self.life.note();
        Ok(response)
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

/// How many bytes the headers of an answer may have.
const MOST_HEADERS: u32 = 64 * 1024;

const CONNECTION_STRING: &str = "neon-connection-string";

/// Drives a connection to its end: that of its last request, once nobody can send another.
async fn driven(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = chain(&error), "a connection for HTTPS has ended");
    }
}

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
