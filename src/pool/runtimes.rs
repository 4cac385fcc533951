//! [`Runtimes`]: the runtimes on which connections are made. One that ends takes its connections with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::{Handle, Id};
use tokio::sync::watch;

use crate::util::lock;

/// The tokio runtimes on which a pool has made connections.
///
/// A runtime that ends drops its tasks, also those that have never run. Only a task of its own tells the pool.
#[derive(Debug, Default)]
pub(crate) struct Runtimes {
    known: Mutex<Vec<(Id, Weak<Runtime>)>>,
    /// Ends the watching tasks when it is dropped.
    open: watch::Sender<()>,
}

/// A runtime on which connections were made.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    has_ended: AtomicBool,
}

impl Runtimes {
    /// Returns the runtime of the caller, and watches for its end.
    pub(crate) fn current(&self) -> Arc<Runtime> {
        let id = Handle::current().id();
        let mut known = lock(&self.known);
        known.retain(|(_, runtime)| runtime.strong_count() > 0);
        let found = known.iter().find(|(known, _)| *known == id);
        if let Some(runtime) = found.and_then(|(_, runtime)| runtime.upgrade()) {
            return runtime;
        }
        let runtime = Arc::<Runtime>::default();
        known.push((id, Arc::downgrade(&runtime)));
        drop(known);
        let (end, mut open) = (End(Arc::clone(&runtime)), self.open.subscribe());
        tokio::spawn(async move {
            let _end = end;
            // Nothing is ever sent.
            while open.changed().await.is_ok() {}
        });
        runtime
    }
}

impl Runtime {
    /// Returns whether the runtime has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}

/// Notes the end of a runtime when the task that owns it is dropped, whether or not that has ever run.
struct End(Arc<Runtime>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
    }
}
