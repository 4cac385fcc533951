//! [`Pool`]: what an application holds.
//!
//! The files, in the order of a checkout:
//! - [`builder`]: makes a pool from a URL and settings.
//! - [`checkout`]: `Pool::get`, and the connection that it returns.
//! - [`queue`]: who is served first.
//! - [`connections`]: bb8's pool beneath, and its settings.
//! - [`manager`]: what bb8 asks of it. `connect` makes connections, `validate` checks them on checkout and replaces one
//!   whose check is late.
//! - [`entry`]: a connection with its deadline and its generation.
//! - [`evict`]: why a connection is closed, and when its siblings are.
//! - [`retry`]: `Pool::retry`, which does work again if that is safe.
//! - [`transaction`]: transactions on a pooled connection.
//! - [`leak`]: warns of connections that are held for long.
//! - [`stats`], [`status`], [`metrics`]: counters, and how users see them.
//! - [`error`]: why there is no pool, and why a caller gets no connection.

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

use tokio::time::{Instant, timeout, timeout_at};

pub use self::builder::PoolBuilder;
pub use self::checkout::PooledConnection;
use self::connections::Connections;
pub use self::entry::PoolEntry;
pub use self::error::{BuildError, PoolError};
pub use self::evict::EvictReason;
pub use self::manager::{ConnectionManager, ManagerError};
use self::queue::CheckoutQueue;
pub use self::retry::{DatabaseFailure, Retry, RetryError, Work};
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
    /// Returns the state of the pool at this moment.
    pub fn status(&self) -> Status {
        let bb8 = self.connections.state();
        let state = self.manager.state();
        let (last_failure, last_failed) = state.health.connect_failure().unzip();
        let (check_failure, check_failed) = state.health.check_failure().unzip();
        Status {
            max_size: state.policy.max_size(),
            size: bb8.connections,
            idle: bb8.idle_connections,
            in_use: bb8.connections.saturating_sub(bb8.idle_connections),
            waiting: self.queue.waiting(),
            longest_held: state.leaks.longest(),
            generation: state.generation.current(),
            checks: state.stats.checks(),
            closed: state.stats.closed(),
            connects: state.stats.connects(),
            last_failure,
            last_failed: last_failed.map(|at| at.elapsed()),
            check_failure,
            check_failed: check_failed.map(|at| at.elapsed()),
        }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        self.manager.policy()
    }

    /// Evicts every connection that exists: idle ones at their next checkout, those in use when they come back. Call it
    /// after a failover, or a change of types in the database.
    pub fn invalidate_all(&self) {
        self.manager.invalidate_all();
    }

    /// Closes the pool: [`get`](Self::get) fails from now on, idle connections end with Terminate, and those in use
    /// have `grace` to come back.
    ///
    /// Returns whether everything was closed in time. Connections that come back later are closed then.
    pub async fn close(&self, grace: Duration) -> bool {
        let deadline = clock::after(Instant::now(), grace);
        self.manager.state().close();
        self.queue.close();
        loop {
            // One checkout closes all idle connections: each fails its validation.
            let _ = timeout(Duration::ZERO, self.connections.connections().get()).await;
            // A connection that has just been made may reach the pool behind that checkout.
            let next_try = deadline.min(clock::after(Instant::now(), CLOSE_INTERVAL));
            let closed = self.manager.state().connector.until_closed();
            if timeout_at(next_try, closed).await.is_ok() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.manager.state().generation.is_closed()
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

/// How often a pool that closes looks for connections to close.
const CLOSE_INTERVAL: Duration = Duration::from_millis(50);
