//! Serves the orders.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::order::Order;
use super::report;
use crate::control::compute::Compute;
use crate::control::counters::Tally;
use crate::control::event::Event;
use crate::control::faults::{Direction, Faults};
use crate::proxy::accept::accept;
use crate::servers::cluster::Cluster;
use crate::servers::server::Server;

/// What orders work on.
pub(crate) struct Remote {
    /// The first part of every path. Pages of other sites, and other users of this machine, do not know it.
    pub(crate) key: String,
    pub(crate) compute: Arc<Compute>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) direct: Arc<Tally>,
    pub(crate) pooled: Arc<Tally>,
    pub(crate) events: broadcast::Sender<Event>,
}

/// Serves every client that connects.
pub(crate) async fn serve_control(remote: Arc<Remote>, listener: TcpListener) {
    accept(listener, |stream| serve_one(Arc::clone(&remote), stream)).await;
}

async fn serve_one(remote: Arc<Remote>, stream: TcpStream) -> io::Result<()> {
    let service = service_fn(|request| {
        let remote = Arc::clone(&remote);
        async move { Ok::<_, Infallible>(remote.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        // With it, the head of a request has 30 s to come.
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(io::Error::other)
}

impl Remote {
    async fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Lines> {
        let path = request.uri().path().strip_prefix('/');
        let name = path
            .and_then(|path| path.strip_prefix(self.key.as_str()))
            .and_then(|path| path.strip_prefix('/'));
        let Some(name) = name else {
            return words(StatusCode::NOT_FOUND, "there is nothing here");
        };
        match (request.method(), name) {
            (&Method::GET, "state") => json(Lines::one(line(&self.state()))),
            (&Method::GET, "events") => json(self.follow()),
            (&Method::POST, name) => {
                let query = request.uri().query().unwrap_or_default();
                match Order::parse(name, query) {
                    None => words(StatusCode::NOT_FOUND, "there is no such order"),
                    Some(Err(wrong)) => words(StatusCode::BAD_REQUEST, &wrong),
                    Some(Ok(order)) => {
                        let remote = Arc::clone(self);
                        // It goes on if the client leaves: what was stopped has to be started again.
                        let work = tokio::spawn(async move { remote.carry_out(order).await });
                        let failed =
                            |_| words(StatusCode::INTERNAL_SERVER_ERROR, "the order failed");
                        work.await.unwrap_or_else(failed)
                    }
                }
            }
            _ => words(StatusCode::METHOD_NOT_ALLOWED, "orders are given by POST"),
        }
    }

    async fn carry_out(&self, order: Order) -> Response<Lines> {
        match order {
            Order::Suspend(suspension) => self.compute.suspend(suspension).await,
            // Without faults it does not fail.
            Order::Wake => drop(self.compute.wake(None).await),
            Order::FailWakes { times, message } => self.faults.fail_wakes(times, message),
            Order::RefuseConnections { times, message } => self.faults.refuse(times, message),
            Order::HangConnections { times } => self.faults.hang(times),
            Order::LoseRequests => self.faults.lose(Direction::ToServer),
            Order::LoseResponses => self.faults.lose(Direction::ToClient),
            Order::RestartPostgres { down } => {
                if let Err(error) = self.cluster.restart(Server::Postgres, down).await {
                    return words(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
                }
            }
            Order::SetColdStart(cold_start) => self.compute.set_cold_start(cold_start),
            Order::ClearFaults => self.faults.clear(),
        }
        let mut done = Response::new(Lines::none());
        *done.status_mut() = StatusCode::NO_CONTENT;
        done
    }

    /// Returns the state as a line, and behind it a line for each event from now on. A client that reads too slowly is told the
    /// state again in the place of events that it has missed.
    fn follow(self: &Arc<Self>) -> Lines {
        let remote = Arc::clone(self);
        let mut events = self.events.subscribe();
        let (lines, body) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut next = remote.state();
            while lines.send(line(&next)).await.is_ok() {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = lines.closed() => return,
                };
                next = match event {
                    Ok(event) => report::event(&event),
                    Err(RecvError::Lagged(_)) => remote.state(),
                    Err(RecvError::Closed) => return,
                };
            }
        });
        Lines(body)
    }

    fn state(&self) -> Value {
        report::state(&self.compute, &self.direct, &self.pooled)
    }
}

/// A body of lines, as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl Lines {
    fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    fn one(line: Bytes) -> Self {
        let (lines, body) = mpsc::channel(1);
        // The channel is empty.
        let _ = lines.try_send(line);
        Self(body)
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = self.0.poll_recv(context);
        line.map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

/// Returns an answer of lines of JSON.
fn json(lines: Lines) -> Response<Lines> {
    answer(StatusCode::OK, "application/x-ndjson", lines)
}

fn words(status: StatusCode, words: &str) -> Response<Lines> {
    let line = Lines::one(format!("{words}\n").into());
    answer(status, "text/plain; charset=utf-8", line)
}

fn answer(status: StatusCode, content_type: &'static str, lines: Lines) -> Response<Lines> {
    let mut response = Response::new(lines);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
