//! How the pool makes a connection.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::entry::PoolEntry;
use super::health::Health;
use super::setup::Setup;
use super::state::PoolState;
use super::stats::Stats;
use crate::connect::{ConnectError, ConnectSlot, Establish, PendingSession};
use crate::session::SessionControl;
use crate::transport::Early;
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
        let making = setup.begin(&self.target);
        let connected = match C::BEGIN.filter(|_| self.pipelines_login(setup)) {
            Some(begin) => {
                let session = self.begin(slot).await;
                session.and_then(|session| {
                    let control = session.session();
                    let connection = making.instrumented(begin(session));
                    Ok((connection.map_err(ConnectError::of_setup)?, control))
                })
            }
            None => {
                let on_failure = failure_recorder(&self.stats, &self.health);
                let set_up = |session| making.set_up(session);
                let connected = self.connector.connect(slot, None, set_up, on_failure).await;
                connected.inspect(|(_, session)| record_login(&self.stats, &self.health, session))
            }
        };
        let (connection, session) = connected.inspect_err(|error| {
            making.fail(error);
            tracing::warn!(error = ?error, "no connection");
        })?;

        let took = began.elapsed();
        self.stats.opened(took);
        tracing::debug!(took = ?took, "a new connection");
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

    /// Returns whether connections may be in use before their login is answered. What a hook does is part of connecting,
    /// and retried with it.
    fn pipelines_login<C>(&self, setup: &Setup<C>) -> bool {
        setup.after_connect.is_none() && self.connector.pipelines_login()
    }

    /// Connects up to the client's last message of the login. A task records how the login ends.
    async fn begin(&self, slot: ConnectSlot) -> Result<PendingSession, ConnectError> {
        let slot = match slot {
            // The caller counts a connect up to here, and its login goes on.
            ConnectSlot::Counted => ConnectSlot::Common,
            slot => slot,
        };
        let early = Arc::<Early>::default();
        let connecting = {
            let (connector, early) = (Arc::clone(&self.connector), Arc::clone(&early));
            let (stats, health) = (Arc::clone(&self.stats), Arc::clone(&self.health));
            async move {
                let on_failure = failure_recorder(&stats, &health);
                let keep = async |session| Ok(session);
                let connected = connector
                    .connect(slot, Some(&early), keep, on_failure)
                    .await;
                let (established, session) = connected?;
                record_login(&stats, &health, &session);
                Ok(established)
            }
        };
        self.connector.begin(early, connecting).await
    }
}

/// Returns what is done about each attempt of a connect that fails.
fn failure_recorder(stats: &Stats, health: &Health) -> impl FnMut(&ConnectError) {
    let mut connecting = health.connecting();
    move |error| {
        stats.attempt_failed();
        connecting.record_failure(error);
    }
}

fn record_login(stats: &Stats, health: &Health, session: &SessionControl) {
    let start = session.status.login().start;
    let cold = session.status.was_cold();
    tracing::debug!(start = ?start, cold, "a login has succeeded");
    if cold {
        stats.cold_start();
    }
    health.record_connected();
}
