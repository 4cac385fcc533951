//! [`Mark`]: tells statements apart that have the same SQL, for instrumentation: Diesel's events have no mark.

use std::cell::Cell;
#[cfg(feature = "http")]
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static CURRENT: Cell<Option<Mark>> = const { Cell::new(None) };
}

#[cfg(feature = "http")]
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Identifies a statement.
#[cfg_attr(
    not(feature = "http"),
    allow(dead_code, reason = "no other connection marks its statements")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Mark {
    #[cfg(feature = "http")]
    pub(crate) fn new() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Calls instrumentation with an event of this statement.
    #[cfg(feature = "http")]
    pub(crate) fn during<T>(self, call: impl FnOnce() -> T) -> T {
        struct Restored(Option<Mark>);

        impl Drop for Restored {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }

        let _restored = Restored(CURRENT.replace(Some(self)));
        call()
    }

    /// Returns the statement whose event instrumentation is called with, if it has a mark.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.get()
    }
}
