//! [`FailedConnects`]: what the callers that wait for a connection are told of connects that fail.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::connect::ConnectError;

/// Tells the callers that wait for a connection whenever a connect has failed.
///
/// bb8 does not: its callers wait until their time is up, and it connects again only if one of them asks anew.
#[derive(Debug, Default)]
pub(crate) struct FailedConnects {
    last: watch::Sender<FailedConnect>,
    /// The count in `last`, to be read without a lock.
    count: AtomicU64,
}

/// The last connect that failed.
#[derive(Debug, Default)]
pub(crate) struct FailedConnect {
    count: u64,
    /// Why it failed; `None` if that says nothing about the next connect.
    pub(crate) error: Option<ConnectError>,
}

impl FailedConnects {
    pub(crate) fn record(&self, error: Option<&ConnectError>) {
        self.last.send_modify(|last| {
            last.count += 1;
            last.error = error.cloned();
            self.count.store(last.count, Ordering::Release);
        });
    }

    /// Returns how many connects have failed.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Returns a receiver of the failures behind the first `count`.
    pub(crate) fn subscribe(&self, count: u64) -> watch::Receiver<FailedConnect> {
        let mut receiver = self.last.subscribe();
        if receiver.borrow().count != count {
            receiver.mark_changed();
        }
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_between_the_count_and_the_subscription_is_not_missed() {
        let failed = FailedConnects::default();
        let before = failed.count();
        assert!(!failed.subscribe(before).has_changed().unwrap());
        failed.record(None);
        assert!(failed.subscribe(before).has_changed().unwrap());
        let mut receiver = failed.subscribe(failed.count());
        assert!(!receiver.has_changed().unwrap());
        let error =
            ConnectError::of_server_error("no".to_owned(), None, std::io::Error::other("no"));
        failed.record(Some(&error));
        assert!(receiver.has_changed().unwrap());
        assert!(receiver.borrow_and_update().error.is_some());
    }
}
