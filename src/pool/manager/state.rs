//! [`PoolState`]: what the clones of a manager and its pool share.

use std::sync::Arc;

use super::failed_connects::FailedConnects;
use super::health::Health;
use super::runtimes::Runtimes;
use crate::connect::Connector;
use crate::policy::Policy;
use crate::pool::evict::Generation;
use crate::pool::leak::LeakDetector;
use crate::pool::metrics::Metrics;
use crate::pool::stats::Stats;
use crate::transport::TlsError;
use crate::url::DatabaseUrl;

#[derive(Debug)]
pub(crate) struct PoolState {
    pub(crate) policy: Policy,
    pub(crate) connector: Connector,
    pub(crate) generation: Generation,
    pub(crate) health: Health,
    pub(crate) failed_connects: FailedConnects,
    pub(crate) leaks: Arc<LeakDetector>,
    pub(crate) runtimes: Runtimes,
    pub(crate) stats: Arc<Stats>,
}

impl PoolState {
    pub(super) fn new(url: &DatabaseUrl, policy: Policy) -> Result<Self, TlsError> {
        Ok(Self {
            policy,
            connector: Connector::new(url, &policy)?,
            generation: Generation::default(),
            health: Health::default(),
            failed_connects: FailedConnects::default(),
            leaks: Arc::new(LeakDetector::new()),
            runtimes: Runtimes::new(),
            stats: Arc::new(Stats::new(Metrics::new(url, &policy))),
        })
    }

    /// Closes the pool: what waits and what connects ends.
    pub(crate) fn close(&self) {
        self.generation.close();
        self.failed_connects.record(None);
    }

    /// Watches the runtime of the caller: when it ends, its connects have failed.
    pub(crate) fn watch_runtime(self: &Arc<Self>) {
        let state = Arc::downgrade(self);
        self.runtimes.watch(move |runtime| {
            if let Some(state) = state.upgrade() {
                state.runtimes.record_end(runtime);
                state.failed_connects.record(None);
            }
        });
    }
}
