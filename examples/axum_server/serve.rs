//! Serves HTTP within limits, so that no client can use up the server.
//!
//! `axum::serve` waits for ever for the head of a request, and takes any number of connections: a few hundred
//! clients that send nothing leave no file descriptor to reach the database with.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// The bounds on connections and requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The largest number of connections; others wait until one ends.
    pub(crate) connections: u16,
    /// How long the head of a request may take, a connection may be idle, and requests may go on after the server
    /// is told to stop.
    pub(crate) request: Duration,
}

impl Limits {
    /// Returns the longest life of a connection: a client that never reads its response must not keep one.
    fn lifetime(&self) -> Duration {
        self.request.saturating_mul(4)
    }
}

/// Serves until SIGINT or SIGTERM, then takes no more connections and finishes the requests that have begun.
/// `stop` becomes true then.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: watch::Sender<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections.into()));
    let stopping = stop.subscribe();
    tokio::select! {
        () = take_connections(listener, &router, limits, &slots, stopping) => {}
        () = stop_signal() => {}
    }
    tracing::info!("shutting down");
    stop.send_replace(true);
    let all_ended = slots.acquire_many(limits.connections.into());
    if timeout(limits.request, all_ended).await.is_err() {
        tracing::warn!("gave up on requests that did not end");
    }
}

async fn take_connections(
    listener: TcpListener,
    router: &Router,
    limits: Limits,
    slots: &Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
) {
    while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
        let stream = accept(&listener).await;
        let (router, stopping) = (router.clone(), stopping.clone());
        tokio::spawn(serve_connection(stream, router, limits, stopping, slot));
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client has closed the connection while it was queued.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            // Most likely there are no more file descriptors, so that another try at once would fail too.
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        () = sleep(limits.lifetime()) => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(limits.request, connection).await {
        log(ended);
    }
}

/// Logs at debug level: clients may leave at any time.
fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
    }
}

async fn stop_signal() {
    let interrupt = async {
        signal::ctrl_c().await.expect("this platform has Ctrl-C");
    };
    #[cfg(unix)]
    let terminate = async {
        signal::unix::signal(signal::unix::SignalKind::terminate())
            .expect("Unix has SIGTERM")
            .recv()
            .await;
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
