//! [`Lines`]: the connections of one runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

use super::line::{Life, Line};
use crate::connect::ConnectError;
use crate::util::lock;

/// The connections of one runtime: one with HTTP/2, else a few, each of which takes one request at a time.
pub(super) struct Lines {
    /// Those with HTTP/1.1 that have no request, and the one with HTTP/2.
    kept: Mutex<Vec<Line>>,
    /// Held while connecting: others wait for the same connection.
    connecting: tokio::sync::Mutex<Option<ConnectError>>,
    /// Counts the connects that have failed.
    failures: AtomicU64,
    /// Whoever connects holds a place, and whoever uses HTTP/1.1.
    places: Arc<Semaphore>,
    idle_timeout: Duration,
}

/// The most connections with HTTP/1.1, as browsers have them.
const MOST_LINES: usize = 6;

/// What a connection has brought meanwhile may not have been looked at, if it was used longer ago than this: nothing drives a
/// runtime that rests.
const RESTED: Duration = Duration::from_millis(100);

/// A runtime looks at its sockets once its tasks have yielded, and then wakes those of the connections.
const LOOKS: usize = 3;

impl Lines {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self {
            kept: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(MOST_LINES)),
            idle_timeout,
        }
    }

    /// Returns a connection: one that is kept, or else a new one. One with HTTP/1.1 has a place, to be held until it is kept
    /// again.
    pub(super) async fn take(
        &self,
        connect: impl Future<Output = Result<Line, ConnectError>>,
    ) -> Result<(Line, Option<OwnedSemaphorePermit>), ConnectError> {
        let failures = self.failures.load(Ordering::Acquire);
        if self.have_rested() {
            for _ in 0..LOOKS {
                yield_now().await;
            }
        }
        if let Some(line) = self.take_http_2() {
            return Ok((line, None));
        }
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        if let Some(line) = self.take_any() {
            return Ok(with_place(line, place));
        }
        let mut last_failure = self.connecting.lock().await;
        if let Some(line) = self.take_any() {
            return Ok(with_place(line, place));
        }
        match &*last_failure {
            // What others have waited for has failed for all of them.
            Some(error) if self.failures.load(Ordering::Acquire) != failures => {
                return Err(error.clone());
            }
            _ => {}
        }
        match connect.await {
            Ok(line) => {
                *last_failure = None;
                lock(&self.kept).extend(line.share());
                Ok(with_place(line, place))
            }
            Err(error) => {
                *last_failure = Some(error.clone());
                self.failures.fetch_add(1, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Keeps a connection whose request was answered.
    pub(super) fn keep(&self, line: Line) {
        let mut kept = lock(&self.kept);
        if !line.is_http_2() {
            kept.push(line);
            return;
        }
        let is_same = |other: &&mut Line| Arc::ptr_eq(&other.life, &line.life);
        if let Some(kept) = kept.iter_mut().find(is_same) {
            kept.last_used = line.last_used;
        }
    }

    /// Gives up a connection, which brings nothing any more. Its requests go on.
    pub(super) fn give_up(&self, life: &Arc<Life>) {
        life.give_up();
        lock(&self.kept).retain(|line| !Arc::ptr_eq(&line.life, life));
    }

    /// Returns whether a connection is kept that has not ended.
    pub(super) fn has_any(&self) -> bool {
        let mut kept = lock(&self.kept);
        self.forget_ended(&mut kept);
        !kept.is_empty()
    }

    fn have_rested(&self) -> bool {
        let kept = lock(&self.kept);
        kept.iter().any(|line| line.last_used.elapsed() > RESTED)
    }

    /// Returns the connection with HTTP/2 that all share.
    fn take_http_2(&self) -> Option<Line> {
        let mut kept = lock(&self.kept);
        self.forget_ended(&mut kept);
        kept.iter().find_map(Line::share)
    }

    /// The same, or else takes a connection with HTTP/1.1 that has no request.
    fn take_any(&self) -> Option<Line> {
        let mut kept = lock(&self.kept);
        self.forget_ended(&mut kept);
        let shared = kept.iter().find_map(Line::share);
        shared.or_else(|| kept.pop())
    }

    /// Forgets connections that have ended, or that something in between may have forgotten.
    fn forget_ended(&self, kept: &mut Vec<Line>) {
        kept.retain(|line| !line.is_closed() && line.last_used.elapsed() < self.idle_timeout);
    }
}

fn with_place(
    line: Line,
    place: Option<OwnedSemaphorePermit>,
) -> (Line, Option<OwnedSemaphorePermit>) {
    let place = place.filter(|_| !line.is_http_2());
    (line, place)
}
