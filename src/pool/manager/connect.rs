//! How the pool makes a connection.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::error::ManagerError;
use super::state::PoolState;
use crate::connect::{ConnectError, ConnectSlot, Establish};
use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::util::backoff;

impl PoolState {
    /// Makes a connection of the current generation.
    ///
    /// Begins anew if that ends meanwhile: the attempt is most likely stuck where its siblings have died.
    pub(super) async fn connect<C: Establish>(&self) -> Result<PoolEntry<C>, ManagerError> {
        while !self.generation.is_closed() {
            let generation = self.generation.current();
            tokio::select! {
                biased;
                made = self.connect_in(generation, ConnectSlot::Common) => {
                    return made.map_err(ManagerError::Connect);
                }
                () = self.generation.until_ended(generation) => {}
            }
        }
        Err(ManagerError::Evicted(EvictReason::PoolClosed))
    }

    /// Makes a connection of `generation`.
    pub(super) async fn connect_in<C: Establish>(
        &self,
        generation: u64,
        slot: ConnectSlot,
    ) -> Result<PoolEntry<C>, ConnectError> {
        let began = Instant::now();
        // Connecting alone would never fail behind a pooler whose server is gone, so it would never pause.
        if let Some(failures) = self.health.died_after_login().checked_sub(1) {
            sleep(backoff::pause(failures, self.policy.connect_timeout())).await;
        }
        let on_failure = |error: &ConnectError| {
            self.stats.attempt_failed();
            self.health.record_connect_failed(error);
        };
        let connected = self.connector.connect(slot, C::establish_with, on_failure);
        let (connection, session) = connected
            .await
            .inspect_err(|error| tracing::warn!(error = ?error, "no connection"))?;

        let (took, cold) = (began.elapsed(), session.status.was_cold());
        self.stats.opened(took, cold);
        tracing::debug!(took = ?took, cold, "a new connection");
        self.health.record_connected();
        Ok(PoolEntry::new(
            connection,
            session,
            self.policy.max_lifetime(),
            generation,
            self.leaks.record(),
            Arc::clone(&self.stats),
        ))
    }
}
