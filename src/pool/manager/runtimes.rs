//! [`Runtimes`]: the runtimes on which connections are made, and when they end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::sync::watch;

/// The tokio runtimes on which a pool has made connections.
///
/// A runtime that ends drops its tasks, also those that have never run. Only a task of its own tells the pool.
#[derive(Debug)]
pub(crate) struct Runtimes {
    watched: Mutex<Vec<Id>>,
    ended: AtomicU64,
    /// Ends the watching tasks when it is dropped.
    open: watch::Sender<()>,
}

impl Runtimes {
    pub(crate) fn new() -> Self {
        Self {
            watched: Mutex::default(),
            ended: AtomicU64::new(0),
            open: watch::Sender::new(()),
        }
    }

    /// Returns how many of the runtimes have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Calls `on_end` when the runtime of the caller ends, unless `self` is dropped before.
    pub(crate) fn watch(&self, on_end: impl FnOnce(Id) + Send + 'static) {
        let id = Handle::current().id();
        let mut watched = self.watched();
        if watched.contains(&id) {
            return;
        }
        watched.push(id);
        // Unlocks before spawning: a runtime that is about to end drops the task at once, which calls `on_end`.
        drop(watched);
        let (watcher, mut open) = (Watcher(Some(move || on_end(id))), self.open.subscribe());
        tokio::spawn(async move {
            let _watcher = watcher;
            // Nothing is ever sent.
            while open.changed().await.is_ok() {}
        });
    }

    /// Counts the runtime `id` as ended.
    pub(crate) fn record_end(&self, id: Id) {
        self.watched().retain(|watched| *watched != id);
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Id>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls its function when the task that owns it is dropped, whether or not that has ever run.
struct Watcher<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Watcher<F> {
    fn drop(&mut self) {
        if let Some(on_end) = self.0.take() {
            on_end();
        }
    }
}
