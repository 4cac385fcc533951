//! [`Gate`]: whose turn it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::stats::Stats;

/// Lets in as many callers as there may be connections, first come, first served; bb8 itself wakes who
/// waits in no particular order.
#[derive(Debug)]
pub(crate) struct Gate {
    turns: Semaphore,
    waiting: AtomicUsize,
    stats: Arc<Stats>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    TooLate,
}

impl Gate {
    pub(crate) fn new(turns: u32, stats: Arc<Stats>) -> Self {
        Self {
            turns: Semaphore::new(turns as usize),
            waiting: AtomicUsize::new(0),
            stats,
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.turns.close();
    }

    /// How many callers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a caller as waiting until the result is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.stats.meter.waits();
        Waiting(self)
    }
}

/// The right to one connection; the next caller has it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(Cow<'a, Arc<Gate>>);

impl<'a> Turn<'a> {
    /// A turn, if there is one and nobody waits for it.
    pub(crate) fn try_take(gate: Cow<'a, Arc<Gate>>) -> Result<Self, Cow<'a, Arc<Gate>>> {
        let taken = gate.turns.try_acquire().map(SemaphorePermit::forget);
        match taken {
            Ok(()) => Ok(Self(gate)),
            Err(_) => Err(gate),
        }
    }

    /// A turn, once all who came before have had theirs.
    pub(crate) async fn take(gate: Cow<'a, Arc<Gate>>, deadline: Instant) -> Result<Self, Refused> {
        match timeout_at(deadline, gate.turns.acquire()).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err(Refused::Closed),
            Err(_) => return Err(Refused::TooLate),
        }
        Ok(Self(gate))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns.add_permits(1);
    }
}

/// A caller who waits, however that ends.
pub(crate) struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.meter.waits_no_more();
    }
}
