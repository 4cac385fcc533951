//! [`LeakDetector`]: warns of connections that callers hold for long, and tells who asked for them.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The records of all of a pool's connections.
#[derive(Debug)]
pub(crate) struct LeakDetector {
    records: Mutex<Vec<Weak<CheckoutRecord>>>,
    /// The task that watches.
    watcher: Mutex<Option<AbortHandle>>,
}

/// The present checkout of one connection, which the record lives as long as.
#[derive(Debug, Default)]
pub(crate) struct CheckoutRecord(Mutex<Option<Checkout>>);

#[derive(Debug)]
struct Checkout {
    asked_at: &'static Location<'static>,
    since: Instant,
    warned: bool,
}

impl LeakDetector {
    pub(crate) fn new() -> Self {
        Self {
            records: Mutex::default(),
            watcher: Mutex::default(),
        }
    }

    /// Returns the record of a new connection.
    pub(crate) fn record(&self) -> Arc<CheckoutRecord> {
        let record = Arc::default();
        let mut records = lock(&self.records);
        records.retain(|record| record.strong_count() > 0);
        records.push(Arc::downgrade(&record));
        record
    }

    /// Returns how long the longest-held connection has been out.
    pub(crate) fn longest(&self) -> Option<Duration> {
        let records = self.records().into_iter();
        records.filter_map(|record| record.held_for()).max()
    }

    /// Warns, once each, of connections that are held for longer than `threshold`, in place of an earlier watcher and
    /// until `self` is dropped. Looks at clocks only.
    pub(crate) fn watch(self: &Arc<Self>, threshold: Duration) {
        let detector = Arc::downgrade(self);
        let mut ticks = interval((threshold / 4).clamp(SHORTEST_TICK, LONGEST_TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let task = tokio::spawn(async move {
            loop {
                ticks.tick().await;
                let Some(detector) = detector.upgrade() else {
                    return;
                };
                for record in detector.records() {
                    record.warn(threshold);
                }
            }
        });
        self.set_watcher(Some(task.abort_handle()));
    }

    fn set_watcher(&self, watcher: Option<AbortHandle>) {
        let earlier = std::mem::replace(&mut *lock(&self.watcher), watcher);
        if let Some(earlier) = earlier {
            earlier.abort();
        }
    }

    fn records(&self) -> Vec<Arc<CheckoutRecord>> {
        lock(&self.records)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl Drop for LeakDetector {
    fn drop(&mut self) {
        self.set_watcher(None);
    }
}

const SHORTEST_TICK: Duration = Duration::from_millis(1);
const LONGEST_TICK: Duration = Duration::from_secs(60 * 60);

impl CheckoutRecord {
    /// Begins a checkout.
    pub(crate) fn begin(&self, asked_at: &'static Location<'static>, since: Instant) {
        *lock(&self.0) = Some(Checkout {
            asked_at,
            since,
            warned: false,
        });
    }

    /// Ends the checkout.
    pub(crate) fn end(&self) {
        *lock(&self.0) = None;
    }

    fn held_for(&self) -> Option<Duration> {
        let checkout = lock(&self.0);
        checkout.as_ref().map(|checkout| checkout.since.elapsed())
    }

    fn warn(&self, threshold: Duration) {
        let mut checkout = lock(&self.0);
        let Some(checkout) = checkout.as_mut().filter(|checkout| !checkout.warned) else {
            return;
        };
        let held_for = checkout.since.elapsed();
        if held_for >= threshold {
            checkout.warned = true;
            tracing::warn!(
                held_for = ?held_for,
                asked_at = %checkout.asked_at,
                "a connection is held for long: is it forgotten?"
            );
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
