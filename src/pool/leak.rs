//! [`LeakDetector`]: warns of connections that callers hold for long, and tells who asked for them and what they wait
//! for.

use std::panic::Location;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::episode::Episode;
use crate::session::SessionControl;
use crate::util::clock::Moment;
use crate::util::lock;

/// The records of all of a pool's connections.
#[derive(Debug, Default)]
pub(crate) struct LeakDetector(Mutex<Vec<Weak<CheckoutRecord>>>);

/// The latest checkout of one connection, which the record lives as long as.
#[derive(Debug)]
pub(crate) struct CheckoutRecord {
    pub(super) session: SessionControl,
    pub(super) born: Moment,
    /// A [`Holding`].
    holding: AtomicU8,
    checkout: Mutex<Option<Checkout>>,
    pub(super) episode: Mutex<Episode>,
}

/// Who has the connection.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Holding {
    /// Nobody has it.
    Free,
    /// A caller has it.
    Held,
    /// A caller has it, and the pool has given it up.
    GivenUp,
}

#[derive(Debug)]
struct Checkout {
    asked_at: &'static Location<'static>,
    since: Moment,
    warned: bool,
}

impl LeakDetector {
    /// Returns the record of a new connection.
    pub(crate) fn record(&self, session: &SessionControl) -> Arc<CheckoutRecord> {
        let record = Arc::new(CheckoutRecord {
            session: session.clone(),
            born: Moment::now(),
            holding: AtomicU8::new(Holding::Free as u8),
            checkout: Mutex::default(),
            episode: Mutex::default(),
        });
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

    /// Returns whether `is_so` of any connection that a caller holds. Asks of each.
    pub(super) fn any_held(&self, mut is_so: impl FnMut(&CheckoutRecord) -> bool) -> bool {
        let mut any = false;
        for record in lock(&self.0).iter().filter_map(Weak::upgrade) {
            any |= record.is_held() && is_so(&record);
        }
        any
    }

    pub(super) fn records(&self) -> Vec<Arc<CheckoutRecord>> {
        lock(&self.0).iter().filter_map(Weak::upgrade).collect()
    }
}

impl CheckoutRecord {
    /// Begins a checkout.
    pub(crate) fn begin(&self, asked_at: &'static Location<'static>, since: Moment) {
        *lock(&self.checkout) = Some(Checkout {
            asked_at,
            since,
            warned: false,
        });
        self.holding.store(Holding::Held as u8, Ordering::Release);
    }

    /// Ends the checkout. Returns whether the pool has given the connection up before.
    pub(crate) fn end(&self) -> bool {
        let before = self.holding.swap(Holding::Free as u8, Ordering::AcqRel);
        before == Holding::GivenUp as u8
    }

    /// Gives up the connection of a caller; returns whether one had it.
    pub(super) fn give_up(&self) -> bool {
        let (held, given_up) = (Holding::Held as u8, Holding::GivenUp as u8);
        let order = Ordering::AcqRel;
        self.holding
            .compare_exchange(held, given_up, order, Ordering::Acquire)
            .is_ok()
    }

    /// Returns whether a caller has the connection, and the pool has not given it up.
    pub(super) fn is_held(&self) -> bool {
        self.holding.load(Ordering::Acquire) == Holding::Held as u8
    }

    /// Returns when the latest checkout began.
    pub(super) fn since(&self) -> Option<Moment> {
        lock(&self.checkout).as_ref().map(|checkout| checkout.since)
    }

    fn held_for(&self) -> Option<Duration> {
        let is_held = self.holding.load(Ordering::Acquire) != Holding::Free as u8;
        let checkout = lock(&self.checkout);
        let checkout = checkout.as_ref().filter(|_| is_held);
        checkout.map(|checkout| checkout.since.monotonic().elapsed())
    }

    fn warn(&self, threshold: Duration) {
        let is_held = self.holding.load(Ordering::Acquire) != Holding::Free as u8;
        let mut checkout = lock(&self.checkout);
        let checkout = checkout
            .as_mut()
            .filter(|checkout| is_held && !checkout.warned);
        let Some(checkout) = checkout else {
            return;
        };
        let held_for = checkout.since.monotonic().elapsed();
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
