//! [`Runtimes`]: where connections are being made, and whether what was begun there still goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::sync::watch;

/// The tokio runtimes on which a pool has made connections.
///
/// One that ends takes its tasks with it, also those that had no turn yet, and nobody hears of it but who has left a
/// task there as well.
#[derive(Debug)]
pub(crate) struct Runtimes {
    watched: Mutex<Vec<Id>>,
    ended: AtomicU64,
    /// Tells the watchers when there is nothing left to watch for.
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

    /// How many have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Watches the runtime of the caller: `on_end` hears of its end, as long as `self` is there.
    pub(crate) fn watch(&self, on_end: impl FnOnce(Id) + Send + 'static) {
        let id = Handle::current().id();
        let mut watched = self.watched();
        if watched.contains(&id) {
            return;
        }
        watched.push(id);
        // A runtime that is about to end drops the task at once.
        drop(watched);
        let (watcher, mut open) = (Watcher(Some(move || on_end(id))), self.open.subscribe());
        tokio::spawn(async move {
            let _watcher = watcher;
            // Nothing is ever sent.
            while open.changed().await.is_ok() {}
        });
    }

    /// Notes that the runtime `id` has ended.
    pub(crate) fn note_end(&self, id: Id) {
        self.watched().retain(|watched| *watched != id);
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Id>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the task, so that it is dropped with it, whether or not the task has ever run.
struct Watcher<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Watcher<F> {
    fn drop(&mut self) {
        if let Some(on_end) = self.0.take() {
            on_end();
        }
    }
}
