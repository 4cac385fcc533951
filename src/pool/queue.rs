//! [`CheckoutQueue`]: whose turn it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::stats::Stats;

/// Lets in as many callers as there may be connections, first come, first served; bb8 itself wakes who
/// waits in no particular order.
#[derive(Debug)]
pub(crate) struct CheckoutQueue {
    permits: Semaphore,
    waiting: AtomicUsize,
    stats: Arc<Stats>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    TooLate,
}

impl CheckoutQueue {
    pub(crate) fn new(permits: u32, stats: Arc<Stats>) -> Self {
        Self {
            permits: Semaphore::new(permits as usize),
            waiting: AtomicUsize::new(0),
            stats,
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    /// How many callers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a caller as waiting until the result is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.stats.metrics.waits();
        Waiting(self)
    }
}

/// The right to one connection; the next caller has it when this is dropped.
#[derive(Debug)]
pub(crate) struct CheckoutPermit<'a>(Cow<'a, Arc<CheckoutQueue>>);

impl<'a> CheckoutPermit<'a> {
    /// A turn, if there is one and nobody waits for it.
    pub(crate) fn try_take(
        queue: Cow<'a, Arc<CheckoutQueue>>,
    ) -> Result<Self, Cow<'a, Arc<CheckoutQueue>>> {
        let taken = queue.permits.try_acquire().map(SemaphorePermit::forget);
        match taken {
            Ok(()) => Ok(Self(queue)),
            Err(_) => Err(queue),
        }
    }

    /// A turn, once all who came before have had theirs.
    pub(crate) async fn take(
        queue: Cow<'a, Arc<CheckoutQueue>>,
        deadline: Instant,
    ) -> Result<Self, Refused> {
        match timeout_at(deadline, queue.permits.acquire()).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err(Refused::Closed),
            Err(_) => return Err(Refused::TooLate),
        }
        Ok(Self(queue))
    }
}

impl Drop for CheckoutPermit<'_> {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
    }
}

/// A caller who waits, however that ends.
pub(crate) struct Waiting<'a>(&'a CheckoutQueue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.metrics.waits_no_more();
    }
}
