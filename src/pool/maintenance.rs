//! [`Maintenance`]: the one background task of a pool, while it runs.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::util::lock;

/// The background task of a pool. It ends with the pool, and with its runtime.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    is_running: Arc<AtomicBool>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// Says that the task does not run any more when it is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<AtomicBool>);

impl Maintenance {
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
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
        if self.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&self.is_running));
        let task = AbortOnDropHandle::new(runtime.spawn(task(running)));
        let earlier = current.replace(task);
        drop(current);
        drop(earlier);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
