//! [`Maintenance`]: the one background task of a pool, while it runs.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::util::lock;

/// The background task of a pool. It ends with the pool, and with its runtime.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    signal: Arc<Signal>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    is_running: AtomicBool,
    /// Whether the task watches the connections in use.
    is_watching: AtomicBool,
    woken: Notify,
}

/// The task's own end. Says that the task does not run any more when it is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Signal>);

impl Maintenance {
    pub(super) fn is_running(&self) -> bool {
        self.signal.is_running.load(Ordering::Acquire)
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

    /// Starts the task on the current runtime, unless one runs.
    pub(super) fn start<F>(&self, task: impl FnOnce(Running) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut current = lock(&self.task);
        if self.signal.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        // Connections may be in use that the task of an earlier runtime has watched.
        self.signal.is_watching.store(true, Ordering::Release);
        let running = Running(Arc::clone(&self.signal));
        let task = AbortOnDropHandle::new(runtime.spawn(task(running)));
        let earlier = current.replace(task);
        drop(current);
        drop(earlier);
    }
}

impl Running {
    pub(super) fn is_watching(&self) -> bool {
        self.0.is_watching.load(Ordering::Acquire)
    }

    /// Watches no longer, until a connection is in use again. Look for one afterwards: it may just have been taken.
    pub(super) fn doze(&self) {
        self.0.is_watching.store(false, Ordering::SeqCst);
    }

    pub(super) fn watch(&self) {
        self.0.is_watching.store(true, Ordering::SeqCst);
    }

    /// Waits until a connection is in use that nobody watches.
    pub(super) async fn until_woken(&self) {
        self.0.woken.notified().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_watching.store(false, Ordering::Release);
        self.0.is_running.store(false, Ordering::Release);
    }
}
