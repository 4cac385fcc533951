//! [`Client`]: sends requests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::line::{Life, Line, Trouble};
use super::lines::Lines;
use super::route::Routes;
use crate::connect::{ConnectError, HttpsConnector};
use crate::transport::Timer;
use crate::util::clock::Moment;
use crate::util::error_chain::chain;
use crate::util::lock;

/// Sends requests on connections to the server, which it keeps.
pub(super) struct Client {
    connector: HttpsConnector,
    routes: Routes,
    runtimes: Mutex<HashMap<Id, Arc<Lines>>>,
    idle_timeout: Duration,
    /// How many bytes an answer may have.
    limit: usize,
    /// A connection that brings nothing for so long is given up with a request that is.
    patience: Duration,
    /// How long a request may go on that nobody polls.
    request_timeout: Option<Duration>,
}

/// How far a request has come. Its task and whoever gives it up agree on whether it is sent: one of them is the first.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    /// The server may process it.
    Sent(On),
    /// It must not be sent any more.
    GivenUp,
}

/// The connection that a request was sent on.
struct On {
    lines: Arc<Lines>,
    life: Arc<Life>,
    began: Moment,
    /// What the connection had brought by then.
    brought: u64,
}

/// Whoever waits longer than this without a sign of life has the next request sent on another connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a request that was sent goes on once nobody waits for it. A server ends a connection with HTTP/2, and what others run
/// on it, if many requests are taken back before it has looked at them.
const REST: Duration = Duration::from_millis(100);

impl Progress {
    /// Returns whether the server may process the request.
    pub(super) fn is_sent(&self) -> bool {
        matches!(&*lock(&self.0), State::Sent(_))
    }

    /// Notes that the server has not processed the request, which may be sent again.
    pub(super) fn set_not_run(&self) {
        let mut state = lock(&self.0);
        if let State::Sent(_) = &*state {
            *state = State::Waiting;
        }
    }

    /// Notes that the request is about to be sent; returns false if it was given up.
    fn set_sent(&self, on: On) -> bool {
        let mut state = lock(&self.0);
        let is_waiting = matches!(&*state, State::Waiting);
        if is_waiting {
            *state = State::Sent(on);
        }
        is_waiting
    }

    /// Gives the request up, and its connection if that has brought nothing for so long.
    fn give_up(&self, patience: Duration) {
        let mut state = lock(&self.0);
        match &*state {
            State::Waiting => *state = State::GivenUp,
            State::Sent(on) if on.is_silent() && on.began.elapsed() >= patience => {
                on.lines.give_up(&on.life);
            }
            State::Sent(_) | State::GivenUp => {}
        }
    }
}

impl On {
    fn is_silent(&self) -> bool {
        self.life.count() == self.brought
    }
}

impl Client {
    pub(super) fn new(
        connector: HttpsConnector,
        routes: Routes,
        idle_timeout: Duration,
        limit: usize,
        request_timeout: Option<Duration>,
    ) -> Self {
        Self {
            connector,
            routes,
            runtimes: Mutex::default(),
            idle_timeout,
            limit,
            patience: request_timeout.map_or(PATIENCE, |limit| PATIENCE.min(limit / 2)),
            request_timeout,
        }
    }

    pub(super) fn connector(&self) -> &HttpsConnector {
        &self.connector
    }

    /// Returns the host that requests go to first, for errors.
    pub(super) fn host(&self) -> &str {
        self.routes.first_host()
    }

    /// Sends a request, and reads its answer. It is cancelled if the future is dropped, a moment later if it was sent.
    pub(super) async fn send(
        self: &Arc<Self>,
        headers: &HeaderMap,
        body: &Bytes,
        progress: &Arc<Progress>,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let (client, headers, body) = (Arc::clone(self), headers.clone(), body.clone());
        let told = Arc::clone(progress);
        let (caller, gone) = oneshot::channel();
        let exchange = async move {
            let exchange = async {
                let exchange = client.exchange(&headers, &body, &told);
                match client.most_unpolled() {
                    Some(limit) => match Timer::Runtime.timeout(limit, exchange).await {
                        Some(answer) => answer,
                        // The caller's own time is up, which is told once the caller polls again.
                        None => std::future::pending().await,
                    },
                    None => exchange.await,
                }
            };
            let rest = async {
                let _ = gone.await;
                client.connector.timer().sleep(REST).await;
            };
            match select(pin!(exchange), pin!(rest)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Err(Trouble::Stale),
            }
        };
        // In a task of its own: a future that is not polled must hold no connection's window, nor for ever a place that others wait
        // for.
        let mut running = Running {
            task: tokio::spawn(exchange.in_current_span()),
            progress,
            patience: self.patience,
            _caller: caller,
        };
        match (&mut running.task).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) if progress.is_sent() => Err(Trouble::Lost("the runtime ends".to_owned())),
            Err(_) => Err(Trouble::Stale),
        }
    }

    async fn exchange(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        progress: &Progress,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let lines = self.lines();
        let taken = lines.take(self.connect()).await;
        let (mut line, _place) = taken.map_err(Trouble::NotConnected)?;
        let _stream = line.ready().await?;
        let on = On {
            lines: Arc::clone(&lines),
            life: Arc::clone(&line.life),
            began: Moment::now(),
            brought: line.life.count(),
        };
        if !progress.set_sent(on) {
            // Nobody waits for it.
            return Err(Trouble::Stale);
        }
        let response = line.send(headers, body).await.inspect_err(|trouble| {
            if let Trouble::Stale = trouble {
                progress.set_not_run();
            }
        })?;
        let status = response.status();
        let body = self.read(response.into_body(), &line.life).await?;
        line.last_used = Moment::now();
        lines.keep(line);
        Ok((status, body))
    }

    /// Returns how long a request may go on that nobody polls. On a runtime without timers nothing goes on by itself.
    fn most_unpolled(&self) -> Option<Duration> {
        let has_timers = self.connector.timer() == Timer::Runtime;
        self.request_timeout.filter(|_| has_timers)
    }

    async fn read(&self, body: Incoming, life: &Life) -> Result<Bytes, Trouble> {
        let body = body.map_frame(|frame| {
            life.note();
            frame
        });
        let read = Limited::new(body, self.limit).collect().await;
        let read = read.map_err(|error| match error.is::<LengthLimitError>() {
            true => Trouble::TooLong,
            false => Trouble::Lost(chain(&*error)),
        });
        Ok(read?.to_bytes())
    }

    /// Returns the connections of this runtime: another may not be driven, and ends its own.
    fn lines(&self) -> Arc<Lines> {
        let runtime = Handle::current().id();
        let mut runtimes = lock(&self.runtimes);
        runtimes
            .retain(|id, lines| *id == runtime || Arc::strong_count(lines) > 1 || lines.has_any());
        let lines = runtimes
            .entry(runtime)
            .or_insert_with(|| Arc::new(Lines::new(self.idle_timeout)));
        Arc::clone(lines)
    }

    async fn connect(&self) -> Result<Line, ConnectError> {
        let (stream, name) = self.connector.connect().await?;
        let route = self.routes.of(&name, &stream.host, stream.is_tls);
        let opened = Line::open(stream, route).await;
        opened.map_err(|error| {
            ConnectError::of_proxy(format!(
                "error communicating with the server: {}",
                chain(&error)
            ))
        })
    }
}

/// A request that is under way, until this is dropped.
struct Running<'a> {
    task: JoinHandle<Result<(StatusCode, Bytes), Trouble>>,
    progress: &'a Progress,
    patience: Duration,
    /// Its end tells the task that nobody waits.
    _caller: oneshot::Sender<Infallible>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.task.is_finished() {
            // The task may be polled meanwhile, and is then not aborted before it waits again.
            self.progress.give_up(self.patience);
            if !self.progress.is_sent() {
                self.task.abort();
            }
        }
    }
}

impl fmt::Debug for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("On")
            .field("brought", &self.brought)
            .finish_non_exhaustive()
    }
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
