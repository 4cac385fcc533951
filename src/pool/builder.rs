//! [`PoolBuilder`]: from settings to a pool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BuildError, Pool};
use crate::gate::Gate;
use crate::manager::{ConnectionManager, Establish, ManagerError};
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
        if let Some(limit) = policy.leak_warning() {
            manager.held().watch(limit);
        }
        let connections = bb8::Pool::builder()
            .max_size(policy.max_size())
            .min_idle(Some(policy.min_idle()).filter(|n| *n > 0))
            .max_lifetime(Some(policy.max_lifetime()))
            .idle_timeout(Some(policy.idle_timeout()))
            .reaper_rate(policy.reaper_rate())
            // Lets a pool that has grown shrink again.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            // The manager knows what is worth another try, and the caller's own deadline comes first.
            .retry_connection(false)
            .error_sink(Box::new(GivenUpSink(manager.clone())))
            .connection_timeout(
                policy
                    .checkout_timeout()
                    .saturating_add(Duration::from_secs(1)),
            )
            .build_unchecked(manager.clone());
        Ok(Pool {
            connections,
            manager,
            gate,
        })
    }
}

/// Hears from bb8 that a connect has failed; its slot is free by then, so that who asks again is served.
struct GivenUpSink<C: Establish>(ConnectionManager<C>);

impl<C: Establish> bb8::ErrorSink<ManagerError> for GivenUpSink<C> {
    fn sink(&self, error: ManagerError) {
        if let ManagerError::Connect(error) = error {
            self.0.give_up(Some(&error));
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ManagerError>> {
        Box::new(Self(self.0.clone()))
    }
}

impl<C: Establish> fmt::Debug for GivenUpSink<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GivenUpSink").field(&self.0).finish()
    }
}
