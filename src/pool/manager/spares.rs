//! [`Spares`]: connections that were made in the place of late ones, until the pool takes them.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::util::lock;

/// Connections that the pool has not asked for yet: it does once it has closed the late ones. So they go the way of every
/// other new connection, and what is done with those (`CustomizeConnection`) is done with them.
pub(super) struct Spares<C>(Mutex<Vec<(PoolEntry<C>, Instant)>>);

impl<C> Spares<C> {
    /// Keeps a connection that has just answered.
    pub(super) fn keep(&self, entry: PoolEntry<C>) {
        lock(&self.0).push((entry, Instant::now()));
    }

    /// Returns how long the latest one has waited.
    pub(super) fn waiting_for(&self) -> Option<Duration> {
        lock(&self.0).last().map(|(_, since)| since.elapsed())
    }

    /// Takes the latest one.
    pub(super) fn take(&self) -> Option<PoolEntry<C>> {
        lock(&self.0).pop().map(|(entry, _)| entry)
    }

    /// Takes those that may not be handed out.
    pub(super) fn take_unfit(
        &self,
        inspect: impl Fn(&mut PoolEntry<C>) -> Result<(), EvictReason>,
    ) -> Vec<(PoolEntry<C>, EvictReason)> {
        let mut spares = lock(&self.0);
        let mut unfit = Vec::new();
        for (mut spare, since) in std::mem::take(&mut *spares) {
            match inspect(&mut spare) {
                Ok(()) => spares.push((spare, since)),
                Err(reason) => unfit.push((spare, reason)),
            }
        }
        unfit
    }

    /// Takes those that have waited for [`EXPIRY`].
    pub(super) fn take_expired(&self) -> Vec<PoolEntry<C>> {
        let mut spares = lock(&self.0);
        let fresh = spares.partition_point(|(_, since)| since.elapsed() >= EXPIRY);
        spares.drain(..fresh).map(|(entry, _)| entry).collect()
    }
}

impl<C> Default for Spares<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A spare that the pool has not taken by then is closed: another connection has served the caller.
pub(super) const EXPIRY: Duration = Duration::from_secs(5);
