//! [`PoolBuilder`]: from settings to a pool.

use std::sync::Arc;
use std::time::Duration;

use super::{BuildError, Pool, Room};
use crate::gate::Gate;
use crate::manager::{ConnectionManager, Establish};
use crate::policy::{Policy, PolicyBuilder};
use crate::url::DatabaseUrl;

/// Sets a [`Pool`] up.
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    url: DatabaseUrl,
    policy: PolicyBuilder,
}

impl PoolBuilder {
    pub(super) fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            policy: Policy::builder(),
        }
    }

    /// See [`PolicyBuilder::max_size`].
    #[must_use]
    pub fn max_size(mut self, connections: u32) -> Self {
        self.policy = self.policy.max_size(connections);
        self
    }

    /// See [`PolicyBuilder::suspend_after`].
    #[must_use]
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.policy = self.policy.suspend_after(window);
        self
    }

    /// Changes any of the policy's settings: `.policy(|p| p.checkout_timeout(timeout))`.
    #[must_use]
    pub fn policy(mut self, change: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Self {
        self.policy = change(self.policy);
        self
    }

    /// Builds the pool; no connection is made yet.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build(self) -> Result<Pool, BuildError> {
        self.build_with()
    }

    /// Builds a pool of another type of connection.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build_with<C: Establish>(self) -> Result<Pool<C>, BuildError> {
        let timeout = self.url.connect_timeout();
        let policy = self.policy.or_connect_timeout(timeout).build()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime);
        }
        let manager = ConnectionManager::new(&self.url, policy)?;
        let gate = Arc::new(Gate::new(policy.max_size(), Arc::clone(manager.stats())));
        Ok(Pool {
            room: Arc::new(Room::new(manager.clone())),
            manager,
            gate,
        })
    }
}
