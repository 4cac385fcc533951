//! [`Shared`]: what the clones of a [`ConnectionManager`](crate::ConnectionManager) share, and how they connect.

use std::sync::Arc;

use tokio::time::sleep;

use super::error::ManagerError;
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
}

impl<C: Establish> Shared<C> {
    pub(super) fn new(state: PoolState) -> Self {
        Self {
            state,
            spares: Spares::default(),
        }
    }

    /// Returns a spare, or makes a connection.
    pub(super) async fn connect(&self) -> Result<PoolEntry<C>, ManagerError> {
        if let Some(spare) = self.spare() {
            return Ok(spare);
        }
        let connected = self
            .state
            .connect(ConnectSlot::Common, &Setup::default())
            .await;
        connected.map_err(|error| match error {
            Some(error) => ManagerError::Connect(error),
            None => ManagerError::Evicted(EvictReason::PoolClosed),
        })
    }

    /// Returns a spare that may be handed out.
    fn spare(&self) -> Option<PoolEntry<C>> {
        loop {
            let mut spare = self.spares.take()?;
            match self.state.inspect(&mut spare, &Moment::now()) {
                Ok(()) => return Some(spare),
                Err(reason) => spare.evict(&reason),
            }
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
