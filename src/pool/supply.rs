//! New connections for those who wait. A connect belongs to the pool: it goes on when its caller has given up.

use std::sync::Arc;

use tokio::time::sleep;

use super::connections::{Connections, Slot};
use super::entry::PoolEntry;
use super::queue::Place;
use crate::connect::{ConnectError, ConnectSlot, Establish};

impl<C: Establish> Connections<C> {
    /// Makes `due` connections, which the queue has counted.
    pub(super) fn make(self: &Arc<Self>, due: u32) {
        // All of them first, so that none is lost if there is no runtime.
        let slots: Vec<_> = (0..due)
            .map(|_| Slot::new(self, Place::Connecting))
            .collect();
        for slot in slots {
            tokio::spawn(connect(slot));
        }
    }

    /// Makes a connection. Fails without an error if the pool is closed.
    pub(super) async fn made(self: &Arc<Self>) -> Result<PoolEntry<C>, Option<ConnectError>> {
        let connected = self.state.connect(ConnectSlot::Counted, &self.setup);
        let entry = connected.await?;
        self.maintain_here();
        Ok(entry)
    }
}

async fn connect<C: Establish>(slot: Slot<C>) {
    let connections = Arc::clone(slot.connections());
    let state = &connections.state;
    if let Some(pause) = connections.pause() {
        sleep(pause).await;
    }
    let mut entry = match connections.made().await {
        Ok(entry) => entry,
        Err(Some(error)) => return connections.tell(&error),
        Err(None) => return,
    };
    // A pooler logs clients in even if the server behind it is gone.
    let is_doubtful = state.health.logins_prove_nothing() || connections.has_suspects();
    if is_doubtful {
        if let Err(reason) = state.ping(&mut entry).await {
            if let Some(error) = state.record_failed_check(&entry, &reason) {
                connections.tell(&error);
            }
            return entry.evict(&reason);
        }
        state.health.record_check_passed();
    }
    slot.give(entry);
    // As many may be due again as `max_connecting` allows.
    let due = connections.queue().connect();
    connections.make(due);
}
