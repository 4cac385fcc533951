//! [`PoolState`]: what a [`Pool`](crate::Pool) and a [`ConnectionManager`](crate::ConnectionManager) both need.

use std::sync::Arc;

use super::error::BuildError;
use super::evict::Generation;
use super::health::{Doubt, Health};
use super::leak::LeakDetector;
use super::metrics::Metrics;
use super::runtimes::Runtimes;
use super::setup::Target;
use super::stats::Stats;
use crate::connect::{Connector, Establish};
use crate::policy::{NamedStatements, Policy};
use crate::url::{DatabaseUrl, Endpoint};

#[derive(Debug)]
pub(crate) struct PoolState {
    pub(crate) policy: Policy,
    pub(crate) connector: Arc<Connector>,
    pub(crate) generation: Generation,
    pub(crate) health: Arc<Health>,
    pub(crate) doubt: Doubt,
    pub(crate) leaks: LeakDetector,
    pub(crate) runtimes: Runtimes,
    pub(crate) stats: Arc<Stats>,
    pub(super) target: Target,
}

impl PoolState {
    /// Prepares to make connections of the type `C`.
    pub(super) fn new<C: Establish>(url: &DatabaseUrl, policy: Policy) -> Result<Self, BuildError> {
        let tracks = policy.named_statements() == NamedStatements::Always;
        if url.endpoint() == Endpoint::Pooled && !C::SAFE_BEHIND_POOLERS && !tracks {
            return Err(BuildError::UnsafeBehindPooler {
                connection: std::any::type_name::<C>(),
            });
        }
        for parameter in url.ignored() {
            tracing::warn!(
                parameter,
                "a parameter of the database URL means nothing here"
            );
        }
        Ok(Self {
            policy,
            connector: Arc::new(Connector::new(url, &policy)?),
            generation: Generation::default(),
            health: Arc::default(),
            doubt: Doubt::default(),
            leaks: LeakDetector::default(),
            runtimes: Runtimes::default(),
            stats: Arc::new(Stats::new(Metrics::new(url, &policy))),
            target: Target::new(url),
        })
    }
}
