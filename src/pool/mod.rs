//! [`Pool`]: what an application holds.

mod builder;
mod checkout;
mod connections;
mod entry;
mod error;
mod evict;
mod leak;
mod manager;
mod metrics;
mod queue;
mod retry;
mod stats;
mod status;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use self::builder::PoolBuilder;
pub use self::checkout::PooledConnection;
use self::connections::Connections;
pub use self::entry::PoolEntry;
pub use self::error::{BuildError, PoolError};
pub use self::evict::EvictReason;
pub use self::manager::{ConnectionManager, ManagerError};
use self::queue::CheckoutQueue;
pub use self::retry::{DatabaseFailure, Idempotent, RetryError, Work};
pub use self::stats::{Checks, Closed, Connects};
pub use self::status::Status;
use crate::connect::Establish;
use crate::connection::Connection;
use crate::policy::Policy;
use crate::util::clock;

/// A pool of connections that outlive Neon's scale to zero.
///
/// Cheap to clone; the clones are one pool. Nothing is sent before the first [`get`](Self::get), and an
/// idle pool sends not one byte.
pub struct Pool<C: Establish = Connection> {
    connections: Arc<Connections<C>>,
    manager: ConnectionManager<C>,
    queue: Arc<CheckoutQueue>,
}

impl<C: Establish> Pool<C> {
    /// How the pool is at this moment.
    pub fn status(&self) -> Status {
        let state = self.connections.state();
        let (last_failure, last_failed) = self.manager.last_failure().unzip();
        let (check_failure, check_failed) = self.manager.check_failure().unzip();
        Status {
            max_size: self.policy().max_size(),
            size: state.connections,
            idle: state.idle_connections,
            in_use: state.connections.saturating_sub(state.idle_connections),
            waiting: self.queue.waiting(),
            longest_held: self.manager.leak_detector().longest(),
            generation: self.manager.generation(),
            checks: self.manager.stats().checks(),
            closed: self.manager.stats().closed(),
            connects: self.manager.stats().connects(),
            last_failure,
            last_failed: last_failed.map(|at| at.elapsed()),
            check_failure,
            check_failed: check_failed.map(|at| at.elapsed()),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        self.manager.policy()
    }

    /// Retires every connection there is: those in use when they come back, idle ones before they are
    /// handed out. For after a failover, or a change of types in the database.
    pub fn invalidate_all(&self) {
        self.manager.invalidate_all();
    }

    /// Closes the pool: [`get`](Self::get) is an error from now on, idle connections end with
    /// Terminate, those in use have until `patience` to come back.
    ///
    /// Returns whether everything was closed in time. Connections that come back later are closed then.
    pub async fn close(&self, patience: Duration) -> bool {
        let deadline = clock::after(Instant::now(), patience);
        self.manager.close();
        self.queue.close();
        loop {
            // A closed manager finds every idle connection invalid, so one look drops them all.
            let _ =
                tokio::time::timeout(Duration::ZERO, self.connections.connections().get()).await;
            // One that has just been made may reach the pool behind that look.
            let next_look = deadline.min(clock::after(Instant::now(), CLOSING));
            if timeout_at(next_look, self.manager.drained()).await.is_ok() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.manager.is_closed()
    }
}

impl<C: Establish> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            connections: Arc::clone(&self.connections),
            manager: self.manager.clone(),
            queue: Arc::clone(&self.queue),
        }
    }
}

impl<C: Establish> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.status())
            .field("policy", self.policy())
            .finish_non_exhaustive()
    }
}

/// How often a pool that is closing looks for connections to close.
const CLOSING: Duration = Duration::from_millis(50);
