//! What is unfinished is not idle: a connection that comes back with an outstanding response is settled first.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::connections::{Connections, Slot};
use super::entry::PoolEntry;
use super::evict::EvictReason;
use super::queue::Place;
use crate::connect::Establish;
use crate::util::clock;

impl<C: Establish> Connections<C> {
    /// Takes back a connection that a caller has held.
    pub(super) fn take_back(self: &Arc<Self>, mut entry: PoolEntry<C>) {
        if let Err(reason) = self.state.inspect_returned(&mut entry) {
            entry.evict(&reason);
            return self.free(Place::InUse);
        }
        // The runtime of the background task may have ended.
        self.maintain();
        if !entry.session().status.is_busy() {
            return self.give(Place::InUse, entry);
        }
        let mut slot = Slot::new(self, Place::InUse);
        slot.transfer(Place::Checking);
        // The rest of a response that is not cancelled may come for as long as the connection is held.
        entry.hold();
        entry.session().abandon();
        // The caller may have dropped the connection outside of any runtime.
        let runtime = Handle::try_current().unwrap_or_else(|_| entry.session().runtime().clone());
        runtime.spawn(settle(slot, entry));
    }
}

/// Waits until the connection has its response, or has given it up.
async fn settle<C: Establish>(mut slot: Slot<C>, mut entry: PoolEntry<C>) {
    let connections = Arc::clone(slot.connections());
    let status = Arc::clone(&entry.session().status);
    let began = Instant::now();
    if timeout_at(
        clock::after(began, connections.state.late()),
        status.until_settled(),
    )
    .await
    .is_err()
    {
        slot.transfer(Place::Settling);
        let is_needed = connections.queue().waiting() > 0;
        if !is_needed {
            entry.release();
        }
        let bound = clock::after(began, connections.state.policy.validation_timeout());
        let _ = timeout_at(bound, status.until_settled()).await;
    }
    let reason = match status.may_miss_response() {
        true => Err(EvictReason::Abandoned),
        false => connections.state.inspect_returned(&mut entry),
    };
    match reason {
        Ok(()) => slot.give(entry),
        Err(reason) => entry.evict(&reason),
    }
}
