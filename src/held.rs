//! Who holds a connection, and since when: for the warning about those who forget to give it back.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::stats::Stats;

/// The connections that are handed out.
#[derive(Debug)]
pub(crate) struct Held {
    holders: Mutex<Slab<Holder>>,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct Holder {
    since: Instant,
    asked_at: &'static Location<'static>,
    warned: bool,
}

impl Held {
    pub(crate) fn new(stats: Arc<Stats>) -> Self {
        Self {
            holders: Mutex::default(),
            stats,
        }
    }

    /// Warns, once each, of connections that are held for longer than `limit`, until nobody else keeps
    /// `self`. Looks at clocks only.
    pub(crate) fn watch(self: &Arc<Self>, limit: Duration) {
        let held = Arc::downgrade(self);
        let mut ticks = interval((limit / 4).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            loop {
                ticks.tick().await;
                let Some(held) = held.upgrade() else {
                    return;
                };
                for (_, holder) in held.lock().iter_mut() {
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

    /// Counts a connection as held until the result is dropped.
    pub(crate) fn hold(
        self: &Arc<Self>,
        asked_at: &'static Location<'static>,
        since: Instant,
        waited: Duration,
    ) -> Hold {
        self.stats.meter.handed_out(waited);
        let key = self.lock().insert(Holder {
            since,
            asked_at,
            warned: false,
        });
        Hold {
            held: Arc::clone(self),
            key,
        }
    }

    /// How long the connection has been held that was asked for first.
    pub(crate) fn longest(&self) -> Option<Duration> {
        let oldest = self.lock().iter().map(|(_, holder)| holder.since).min();
        oldest.map(|since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection in somebody's hands.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Arc<Held>,
    key: usize,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let holder = self.held.lock().remove(self.key);
        self.held.stats.meter.came_back(holder.since);
    }
}
