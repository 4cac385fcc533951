//! Takes connections back. What is unfinished is not idle: a connection that comes back with an outstanding response is
//! settled first, and one that a hook is to see (`after_release`) is shown to it.

use std::pin::pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::connections::{Connections, Slot};
use super::entry::PoolEntry;
use super::evict::EvictReason;
use super::hooks::Hook;
use super::queue::Place;
use crate::connect::Establish;
use crate::util::clock;

impl<C: Establish> Connections<C> {
    /// Takes back a connection that a caller has held in `place`.
    pub(super) fn take_back(self: &Arc<Self>, place: Place, mut entry: PoolEntry<C>) {
        if self.hooks.before_acquire.is_some() {
            entry.set_released();
        }
        self.settle_with(place, entry, self.hooks.after_release.clone());
    }

    /// Takes back a connection that no caller has held, though it may be in use.
    pub(super) fn settle(self: &Arc<Self>, entry: PoolEntry<C>) {
        self.settle_with(Place::InUse, entry, None);
    }

    fn settle_with(
        self: &Arc<Self>,
        place: Place,
        mut entry: PoolEntry<C>,
        hook: Option<Hook<C, bool>>,
    ) {
        if let Err(reason) = self.state.inspect_returned(&mut entry) {
            // Freed behind the connection's end, also if telling of that panics.
            let _slot = Slot::new(self, place);
            return entry.evict(&reason);
        }
        // The runtime of the background task may have ended.
        self.maintain();
        let status = &entry.session().status;
        let is_busy = status.is_busy() && !status.owes_login_alone();
        if !is_busy && hook.is_none() {
            return self.give(place, entry);
        }
        let mut slot = Slot::new(self, place);
        slot.transfer_to_check(&entry);
        if is_busy {
            give_up_response(&mut entry);
        }
        // The caller may have dropped the connection outside of any runtime.
        let runtime = Handle::try_current().unwrap_or_else(|_| entry.session().runtime().clone());
        runtime.spawn(settle(slot, entry, hook));
    }
}

/// Lets the rest of a response that is not cancelled come for as long as the connection is held.
fn give_up_response<C: Establish>(entry: &mut PoolEntry<C>) {
    entry.hold();
    entry.session().abandon();
}

/// Gives the connection on once it has its response and the hook has seen it.
async fn settle<C: Establish>(
    mut slot: Slot<C>,
    mut entry: PoolEntry<C>,
    hook: Option<Hook<C, bool>>,
) {
    let status = Arc::clone(&entry.session().status);
    let settled = async {
        if status.is_busy() && !status.owes_login_alone() {
            until_settled(&mut slot, &mut entry).await?;
        }
        let Some(hook) = hook else {
            return Ok(());
        };
        status.until_logged_in().await;
        after_release(&mut slot, &mut entry, &hook).await?;
        slot.connections().state.inspect_returned(&mut entry)?;
        if entry.session().status.is_busy() {
            give_up_response(&mut entry);
            until_settled(&mut slot, &mut entry).await?;
        }
        Ok(())
    };
    let responses = status.responses();
    let settled: Result<(), EvictReason> = settled.await;
    match settled {
        Ok(()) => {
            // Without an answer, it is as one that comes back idle.
            if status.responses() == responses {
                slot.transfer(Place::InUse);
            }
            slot.give(entry);
        }
        Err(reason) => entry.evict(&reason),
    }
}

/// Waits until the connection has its response, or has given it up.
async fn until_settled<C: Establish>(
    slot: &mut Slot<C>,
    entry: &mut PoolEntry<C>,
) -> Result<(), EvictReason> {
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
    match status.may_miss_response() {
        true => Err(EvictReason::Abandoned),
        false => connections.state.inspect_returned(entry),
    }
}

/// Shows the connection to the hook, which has as long as a check.
async fn after_release<C: Establish>(
    slot: &mut Slot<C>,
    entry: &mut PoolEntry<C>,
    hook: &Hook<C, bool>,
) -> Result<(), EvictReason> {
    let connections = Arc::clone(slot.connections());
    let (state, metadata) = (&connections.state, entry.metadata().of_release());
    // As a caller would.
    entry.hold();
    let mut hooked = pin!(hook(entry, metadata));
    let kept = match timeout(state.late(), &mut hooked).await {
        Ok(kept) => Some(kept),
        Err(_) => {
            slot.transfer(Place::Settling);
            let left = state.policy.validation_timeout();
            timeout(left.saturating_sub(state.late()), hooked)
                .await
                .ok()
        }
    };
    match kept {
        Some(Ok(true)) => return Ok(()),
        Some(Ok(false)) => {}
        Some(Err(error)) => tracing::warn!(error = ?error, "after_release failed"),
        None => tracing::warn!("after_release did not end within validation_timeout"),
    }
    Err(EvictReason::Hook {
        hook: "after_release",
    })
}
