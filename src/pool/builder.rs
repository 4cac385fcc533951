//! [`PoolBuilder`]: makes a pool from a URL and settings.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Pool;
use super::connections::Connections;
use super::error::BuildError;
use super::state::PoolState;
use crate::connect::Establish;
use crate::env;
use crate::policy::{Policy, PolicyBuilder};
use crate::url::DatabaseUrl;

impl Pool {
    /// Builds a pool for the URL in the environment ([`env::app_url`]), or in the nearest `.env` file if the
    /// environment has none, with the default [`Policy`].
    ///
    /// The file is read for this URL alone; [`env::load_dotenv`] puts all of it into the environment.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn from_env() -> Result<Self, BuildError> {
        Self::builder(env::app_url_or_dotenv()?.url).build()
    }

    /// Begins a pool for `url`.
    pub fn builder(url: DatabaseUrl) -> PoolBuilder {
        PoolBuilder::new(url)
    }
}

/// Builds a [`Pool`], inside of a tokio runtime or outside.
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

    /// Set the maximum number of connections; see [`PolicyBuilder::max_size`].
    #[must_use]
    pub fn max_size(mut self, connections: u32) -> Self {
        self.policy = self.policy.max_size(connections);
        self
    }

    /// Set the compute's *scale to zero*; see [`PolicyBuilder::suspend_after`].
    #[must_use]
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.policy = self.policy.suspend_after(window);
        self
    }

    /// Change any of the policy's settings: `.policy(|p| p.checkout_timeout(timeout))`.
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

    /// Builds a pool whose connections are of another type; no connection is made yet.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build_with<C: Establish>(self) -> Result<Pool<C>, BuildError> {
        let timeout = self.url.connect_timeout();
        let policy = self.policy.or_connect_timeout(timeout).build()?;
        let state = PoolState::new::<C>(&self.url, policy)?;
        let connections = Arc::new(Connections::new(state));
        if policy.min_idle() > 0 && Handle::try_current().is_ok() {
            connections.maintain();
            let due = connections.queue().connect();
            connections.make(due);
        }
        Ok(Pool { connections })
    }
}
