//! How the pool makes a connection.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::entry::PoolEntry;
use super::setup::Setup;
use super::state::PoolState;
use crate::connect::{ConnectError, ConnectSlot, Establish};
use crate::util::backoff;

impl PoolState {
    /// Makes a connection of the current generation, and begins anew if that ends meanwhile. Fails without an error if
    /// the pool is closed.
    pub(super) async fn connect<C: Establish>(
        &self,
        slot: ConnectSlot,
        setup: &Setup<C>,
    ) -> Result<PoolEntry<C>, Option<ConnectError>> {
        while !self.generation.is_closed() {
            let generation = self.generation.current();
            tokio::select! {
                biased;
                made = self.connect_in(generation, slot, setup) => {
                    return made.map_err(Some);
                }
                () = self.generation.until_ended(generation) => {}
            }
        }
        Err(None)
    }

    /// Makes a connection of `generation`.
    pub(super) async fn connect_in<C: Establish>(
        &self,
        generation: u64,
        slot: ConnectSlot,
        setup: &Setup<C>,
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
        let making = setup.begin(&self.target);
        let connected = self
            .connector
            .connect(slot, |session| making.set_up(session), on_failure);
        let (connection, session) = connected.await.inspect_err(|error| {
            making.fail(error);
            tracing::warn!(error = ?error, "no connection");
        })?;

        let (took, cold) = (began.elapsed(), session.status.was_cold());
        self.stats.opened(took, cold);
        tracing::debug!(took = ?took, cold, "a new connection");
        self.health.record_connected();
        if self.policy.silence_threshold().is_some() {
            self.connector.want_process(&session.status);
        }
        let record = self.leaks.record(&session);
        Ok(PoolEntry::new(
            connection,
            session,
            self.policy.max_lifetime(),
            generation,
            self.runtimes.current(),
            record,
            Arc::clone(&self.stats),
        ))
    }
}
