//! [`LeakDetector`]: who holds a connection, and since when; for the warning about those who forget to give it back.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The holds of all of a pool's connections.
#[derive(Debug)]
pub(crate) struct LeakDetector {
    began: Instant,
    holds: Mutex<Vec<Weak<CheckoutRecord>>>,
    /// The task that watches.
    watcher: Mutex<Option<AbortHandle>>,
}

/// Whose hands one connection is in. Lives as long as the connection, so that a checkout takes no lock.
#[derive(Debug)]
pub(crate) struct CheckoutRecord {
    began: Instant,
    /// In nanoseconds behind `began`; 0 while it is in nobody's hands.
    since: AtomicU64,
    asked_at: AtomicCell<Option<&'static Location<'static>>>,
    warned: AtomicBool,
}

impl LeakDetector {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            holds: Mutex::default(),
            watcher: Mutex::default(),
        }
    }

    /// For a new connection.
    pub(crate) fn record(&self) -> Arc<CheckoutRecord> {
        let record = Arc::new(CheckoutRecord {
            began: self.began,
            since: AtomicU64::new(0),
            asked_at: AtomicCell::new(None),
            warned: AtomicBool::new(false),
        });
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|record| record.strong_count() > 0);
        holds.push(Arc::downgrade(&record));
        record
    }

    /// Returns how long the longest-held connection has been out.
    pub(crate) fn longest(&self) -> Option<Duration> {
        let held = self
            .all()
            .into_iter()
            .filter_map(|record| record.held_for());
        held.max()
    }

    /// Warns, once each, of connections that are held for longer than `limit`, in place of who has done so before
    /// and until `self` is dropped. Looks at clocks only.
    pub(crate) fn watch(self: &Arc<Self>, limit: Duration) {
        let held = Arc::downgrade(self);
        let mut ticks = interval((limit / 4).clamp(SHORTEST_TICK, LONGEST_TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let task = tokio::spawn(async move {
            loop {
                ticks.tick().await;
                let Some(held) = held.upgrade() else {
                    return;
                };
                for record in held.all() {
                    record.warn(limit);
                }
            }
        });
        self.set_watcher(Some(task.abort_handle()));
    }

    fn set_watcher(&self, watcher: Option<AbortHandle>) {
        let current = self.watcher.lock();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = std::mem::replace(&mut *current, watcher) {
            earlier.abort();
        }
    }

    fn all(&self) -> Vec<Arc<CheckoutRecord>> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.iter().filter_map(Weak::upgrade).collect()
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
    /// The connection is handed out.
    pub(crate) fn begin(&self, asked_at: &'static Location<'static>, since: Instant) {
        let since = since.saturating_duration_since(self.began).as_nanos();
        self.warned.store(false, Ordering::Relaxed);
        self.asked_at.store(Some(asked_at));
        let since = u64::try_from(since).unwrap_or(u64::MAX).max(1);
        self.since.store(since, Ordering::Release);
    }

    /// The connection has come back.
    pub(crate) fn end(&self) {
        self.since.store(0, Ordering::Release);
    }

    fn held_for(&self) -> Option<Duration> {
        let since = match self.since.load(Ordering::Acquire) {
            0 => return None,
            nanos => Duration::from_nanos(nanos),
        };
        Some(self.began.elapsed().saturating_sub(since))
    }

    fn warn(&self, limit: Duration) {
        let Some(held_for) = self.held_for().filter(|held_for| *held_for >= limit) else {
            return;
        };
        let Some(asked_at) = self.asked_at.load() else {
            return;
        };
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                held_for = ?held_for,
                asked_at = %asked_at,
                "a connection is held for long: is it forgotten?"
            );
        }
    }
}
