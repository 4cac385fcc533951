//! [`LeakDetector`]: warns of connections that callers hold for long, and tells who asked for them.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::util::lock;

/// The records of all of a pool's connections.
#[derive(Debug, Default)]
pub(crate) struct LeakDetector(Mutex<Vec<Weak<CheckoutRecord>>>);

/// The latest checkout of one connection, which the record lives as long as.
#[derive(Debug, Default)]
pub(crate) struct CheckoutRecord {
    /// Whether the checkout has not ended.
    is_held: AtomicBool,
    checkout: Mutex<Option<Checkout>>,
}

#[derive(Debug)]
struct Checkout {
    asked_at: &'static Location<'static>,
    since: Instant,
    warned: bool,
}

impl LeakDetector {
    /// Returns the record of a new connection.
    pub(crate) fn record(&self) -> Arc<CheckoutRecord> {
        let record = Arc::default();
        let mut records = lock(&self.0);
        records.retain(|record| record.strong_count() > 0);
        records.push(Arc::downgrade(&record));
        record
    }

    /// Returns how long the longest-held connection has been out.
    pub(crate) fn longest(&self) -> Option<Duration> {
        let records = self.records().into_iter();
        records.filter_map(|record| record.held_for()).max()
    }

    /// Warns, once each, of connections that are held for longer than `threshold`.
    pub(crate) fn warn(&self, threshold: Duration) {
        for record in self.records() {
            record.warn(threshold);
        }
    }

    fn records(&self) -> Vec<Arc<CheckoutRecord>> {
        lock(&self.0).iter().filter_map(Weak::upgrade).collect()
    }
}

impl CheckoutRecord {
    /// Begins a checkout.
    pub(crate) fn begin(&self, asked_at: &'static Location<'static>, since: Instant) {
        *lock(&self.checkout) = Some(Checkout {
            asked_at,
            since,
            warned: false,
        });
        self.is_held.store(true, Ordering::Release);
    }

    /// Ends the checkout.
    pub(crate) fn end(&self) {
        self.is_held.store(false, Ordering::Release);
    }

    fn held_for(&self) -> Option<Duration> {
        let is_held = self.is_held.load(Ordering::Acquire);
        let checkout = lock(&self.checkout);
        let checkout = checkout.as_ref().filter(|_| is_held);
        checkout.map(|checkout| checkout.since.elapsed())
    }

    fn warn(&self, threshold: Duration) {
        let is_held = self.is_held.load(Ordering::Acquire);
        let mut checkout = lock(&self.checkout);
        let checkout = checkout
            .as_mut()
            .filter(|checkout| is_held && !checkout.warned);
        let Some(checkout) = checkout else {
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
