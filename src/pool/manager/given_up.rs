//! [`GivenUp`]: what those who wait hear of connects that come to nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::{ConnectionManager, Shared};
use crate::connect::{ConnectError, Establish};

/// The connects that were given up.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    times: u64,
    /// Why the last was; nothing where that says nothing of the next.
    pub(crate) last: Option<ConnectError>,
}

impl Shared {
    fn give_up(&self, error: Option<&ConnectError>) {
        self.given_up.send_modify(|given_up| {
            given_up.times += 1;
            given_up.last = error.cloned();
            self.times_given_up.store(given_up.times, Ordering::Release);
        });
    }
}

impl<C: Establish> ConnectionManager<C> {
    /// Tells those who wait that a connect has been given up.
    pub(crate) fn give_up(&self, error: Option<&ConnectError>) {
        self.shared.give_up(error);
    }

    /// Has those who wait ask anew once the runtime ends that this is called on: what was begun there is given up.
    pub(crate) fn watch_runtime(&self) {
        let shared = Arc::downgrade(&self.shared);
        self.shared.runtimes.watch(move |runtime| {
            if let Some(shared) = shared.upgrade() {
                shared.runtimes.note_end(runtime);
                shared.give_up(None);
            }
        });
    }

    /// How many runtimes have ended of those on which connections were made.
    pub(crate) fn runtimes_ended(&self) -> u64 {
        self.shared.runtimes.ended()
    }

    /// How many connects have been given up.
    pub(crate) fn times_given_up(&self) -> u64 {
        self.shared.times_given_up.load(Ordering::Acquire)
    }

    /// Hears of the connects that were given up since there had been so many.
    pub(crate) fn given_up_since(&self, times: u64) -> watch::Receiver<GivenUp> {
        let mut given_up = self.shared.given_up.subscribe();
        if given_up.borrow().times != times {
            given_up.mark_changed();
        }
        given_up
    }
}
