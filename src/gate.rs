//! [`Gate`]: whose turn it is, and who holds a connection, since when.

use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::stats::Stats;

/// Lets in as many callers as there may be connections, first come, first served; bb8 itself wakes who
/// waits in no particular order.
#[derive(Debug)]
pub(crate) struct Gate {
    turns: Semaphore,
    waiting: AtomicUsize,
    holders: Mutex<Slab<Holder>>,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct Holder {
    since: Instant,
    asked_at: &'static Location<'static>,
    warned: bool,
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
            holders: Mutex::default(),
            stats,
        }
    }

    /// A turn, if there is one and nobody waits for it.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Turn> {
        self.turns.try_acquire().ok()?.forget();
        Some(self.turn())
    }

    /// Counts a caller as waiting until the result is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        Waiting::new(self)
    }

    /// A turn, once all who came before have had theirs.
    pub(crate) async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Turn, Refused> {
        match timeout_at(deadline, self.turns.acquire()).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err(Refused::Closed),
            Err(_) => return Err(Refused::TooLate),
        }
        Ok(self.turn())
    }

    fn turn(self: &Arc<Self>) -> Turn {
        Turn {
            gate: Arc::clone(self),
            holder: None,
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

    /// How long the connection has been held that was asked for first.
    pub(crate) fn longest_held(&self) -> Option<Duration> {
        let oldest = self.holders().iter().map(|(_, holder)| holder.since).min();
        oldest.map(|since| since.elapsed())
    }

    /// Warns, once each, of connections that are held for longer than `limit`, until nobody else keeps
    /// `self`. Looks at clocks only.
    pub(crate) fn watch(self: &Arc<Self>, limit: Duration) {
        let gate = Arc::downgrade(self);
        let mut ticks = interval((limit / 4).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            loop {
                ticks.tick().await;
                let Some(gate) = gate.upgrade() else {
                    return;
                };
                for (_, holder) in gate.holders().iter_mut() {
                    let held_for = holder.since.elapsed();
                    if held_for >= limit && !holder.warned {
                        holder.warned = true;
                        tracing::warn!(
                            held_for = ?held_for,
                            asked_at = %holder.asked_at,
                            "a connection is held for long: is it forgotten?"
                        );
                    }
                }
            }
        });
    }

    fn holders(&self) -> MutexGuard<'_, Slab<Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one connection; the next caller has it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    gate: Arc<Gate>,
    holder: Option<usize>,
}

impl Turn {
    /// Notes that the connection is in the caller's hands.
    pub(crate) fn hold(
        &mut self,
        asked_at: &'static Location<'static>,
        since: Instant,
        waited: Duration,
    ) {
        self.gate.stats.meter.handed_out(waited);
        let holder = Holder {
            since,
            asked_at,
            warned: false,
        };
        self.holder = Some(self.gate.holders().insert(holder));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(key) = self.holder {
            let holder = self.gate.holders().remove(key);
            self.gate.stats.meter.came_back(holder.since);
        }
        self.gate.turns.add_permits(1);
    }
}

/// A caller who waits, however that ends.
pub(crate) struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, Ordering::Relaxed);
        gate.stats.meter.waits();
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.meter.waits_no_more();
    }
}
