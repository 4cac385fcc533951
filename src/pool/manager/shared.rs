//! [`Shared`]: what the clones of a [`ConnectionManager`](crate::ConnectionManager) share, and how they connect.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::ManagerError;
use super::refusals::Refusals;
use super::spares::{EXPIRY, Spares};
use crate::connect::{ConnectSlot, Establish};
use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::pool::setup::Setup;
use crate::pool::state::PoolState;
use crate::util::clock::Moment;

pub(super) struct Shared<C> {
    pub(super) state: PoolState,
    pub(super) spares: Spares<C>,
    refusals: Refusals,
}

impl<C: Establish> Shared<C> {
    /// Remembers a refusal for `longest` at most.
    pub(super) fn new(state: PoolState, longest: Duration) -> Self {
        Self {
            state,
            spares: Spares::default(),
            refusals: Refusals::new(longest),
        }
    }

    /// Returns a spare, or makes a connection, unless it is known that the server refuses it.
    pub(super) async fn connect(&self) -> Result<PoolEntry<C>, ManagerError> {
        if let Some(spare) = self.spare() {
            return Ok(spare);
        }
        let generation = self.state.generation.current();
        if let Some(error) = self.refusals.recall(generation, Instant::now()) {
            tracing::debug!(error = ?error, "no connection");
            return Err(ManagerError::Connect(error));
        }
        let connected = self
            .state
            .connect(ConnectSlot::Common, &Setup::default())
            .await;
        let failure = connected.as_ref().err().and_then(Option::as_ref);
        self.refusals.record(generation, failure, Instant::now());
        connected.map_err(|error| match error {
            Some(error) => ManagerError::Connect(error),
            None => ManagerError::Evicted(EvictReason::PoolClosed),
        })
    }

    /// Returns a spare that may be handed out.
    fn spare(&self) -> Option<PoolEntry<C>> {
        self.close_unfit_spares();
        self.spares.take()
    }

    /// Returns for how long the latest spare has waited that may be handed out.
    pub(super) fn spare_waits_for(&self) -> Option<Duration> {
        self.close_unfit_spares();
        self.spares.waiting_for()
    }

    fn close_unfit_spares(&self) {
        let now = Moment::now();
        let inspect = |spare: &mut PoolEntry<C>| self.state.inspect(spare, &now);
        for (spare, reason) in self.spares.take_unfit(inspect) {
            spare.evict(&reason);
        }
    }

    /// Keeps a connection for the pool's next connect, for a moment.
    pub(super) fn keep_spare(self: &Arc<Self>, entry: PoolEntry<C>) {
        self.spares.keep(entry);
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(EXPIRY).await;
            if let Some(shared) = shared.upgrade() {
                for spare in shared.spares.take_expired() {
                    spare.evict(&EvictReason::Surplus);
                }
            }
        });
    }
}
