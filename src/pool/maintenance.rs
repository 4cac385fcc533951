//! [`Maintenance`]: the one background task of a pool, while it runs.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::util::clock::SLACK;
use crate::util::lock;

/// The background task of a pool. It ends with the pool, and with its runtime.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    signal: Arc<Signal>,
    /// How many tasks were started.
    started: AtomicU64,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    /// The number of the task that runs, or 0.
    running: AtomicU64,
    /// When the task runs next. Once that is long past, its runtime does not run.
    next: Mutex<Option<Instant>>,
    /// Whether the task watches the connections in use.
    is_watching: AtomicBool,
    woken: Notify,
}

/// The task's own end. Says that the task does not run any more when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    signal: Arc<Signal>,
    number: u64,
}

impl Maintenance {
    pub(super) fn is_running(&self) -> bool {
        self.signal.running.load(Ordering::Acquire) != 0
    }

    /// Returns whether the task's runtime does not run, such as a current-thread one between two `block_on`.
    pub(super) fn is_stalled(&self) -> bool {
        let next = *lock(&self.signal.next);
        next.is_some_and(|next| next.elapsed() > SLACK)
    }

    /// Returns whether the task watches the connections in use.
    pub(super) fn is_watching(&self) -> bool {
        self.signal.is_watching.load(Ordering::Relaxed)
    }

    /// Has the task watch the connections in use.
    pub(super) fn watch(&self) {
        if self.is_running() && !self.signal.is_watching.swap(true, Ordering::AcqRel) {
            self.signal.woken.notify_one();
        }
    }

    /// Starts the task on the current runtime, unless another runs.
    pub(super) fn start<F>(&self, task: impl FnOnce(Running) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut current = lock(&self.task);
        if self.is_running() && !self.is_stalled() {
            return;
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        self.signal.running.store(number, Ordering::Release);
        *lock(&self.signal.next) = Some(Instant::now());
        // Connections may be in use that the task of an earlier runtime has watched.
        self.signal.is_watching.store(true, Ordering::Release);
        let running = Running {
            signal: Arc::clone(&self.signal),
            number,
        };
        let task = AbortOnDropHandle::new(runtime.spawn(task(running)));
        let earlier = current.replace(task);
        drop(current);
        drop(earlier);
    }
}

impl Running {
    /// Notes when the task runs next.
    pub(super) fn set_next(&self, next: Instant) {
        if self.signal.running.load(Ordering::Acquire) == self.number {
            *lock(&self.signal.next) = Some(next);
        }
    }

    pub(super) fn is_watching(&self) -> bool {
        self.signal.is_watching.load(Ordering::Acquire)
    }

    /// Watches no longer, until a connection is in use again. Look for one afterwards: it may just have been taken.
    pub(super) fn doze(&self) {
        self.signal.is_watching.store(false, Ordering::SeqCst);
    }

    pub(super) fn watch(&self) {
        self.signal.is_watching.store(true, Ordering::SeqCst);
    }

    /// Waits until a connection is in use that nobody watches.
    pub(super) async fn until_woken(&self) {
        self.signal.woken.notified().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let order = Ordering::AcqRel;
        let running = &self.signal.running;
        // Another task may have taken its place.
        if running
            .compare_exchange(self.number, 0, order, Ordering::Relaxed)
            .is_ok()
        {
            *lock(&self.signal.next) = None;
            self.signal.is_watching.store(false, Ordering::Release);
        }
    }
}
