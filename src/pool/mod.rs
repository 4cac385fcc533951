//! [`Pool`]: what an application holds.
//!
//! The files, in the order of a checkout:
//! - [`builder`]: makes a pool from a URL and settings.
//! - [`checkout`]: `Pool::get`, and the connection that it returns; [`turn`]: how its caller waits.
//! - [`try_get`]: an idle connection, without waiting.
//! - [`queue`]: what the connections are doing, who waits, and who is served first. Pure.
//! - [`connections`]: the queue under its lock, and the guards that keep a connection's place in it: of a task, or of a
//!   caller that is about to hold it.
//! - [`validation`]: which connection may be handed out, and which must be asked first.
//! - [`check`]: asks, and calls the roll if an answer is late or a connection is dead.
//! - [`supply`]: makes connections for those who wait; [`connect`] makes one, and [`setup`] says what is done with it once.
//! - [`settle`]: takes connections back, and lets unfinished ones finish first.
//! - [`hooks`]: what an application has done before a connection is handed out and after it comes back.
//! - [`sweep`]: closes idle connections at their end, and warns of leaks, in the one background task ([`maintenance`]).
//! - [`silence`]: looks after statements that wait for long; [`episode`]: when; [`activity`]: what the server says.
//! - [`state`]: what all of them share: [`entry`], a connection with its deadline; [`lifetime`], how that is drawn; [`evict`], why it is
//!   closed;
//!   [`health`], what the latest connects and checks say; [`runtimes`], whose end is the end of their connections.
//! - [`retry`]: `Pool::retry`, which does work again if that is safe.
//! - [`transaction`]: transactions on a pooled connection.
//! - [`dedicated`]: a connection outside of the pool.
//! - [`manager`]: the same policies for a pool of bb8's.
//! - [`leak`]: who holds a connection for long.
//! - [`stats`], [`status`], [`metrics`]: counters, and how users see them.
//! - [`error`]: why there is no pool, and why a caller gets no connection.

mod activity;
mod builder;
mod check;
mod checkout;
mod connect;
mod connections;
mod dedicated;
mod entry;
mod episode;
mod error;
mod evict;
mod health;
mod hooks;
mod leak;
mod lifetime;
mod maintenance;
mod manager;
mod metrics;
mod queue;
mod retry;
mod runtimes;
mod settle;
mod setup;
mod silence;
mod state;
mod stats;
mod status;
mod supply;
mod sweep;
mod transaction;
mod try_get;
mod turn;
mod validation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

pub use self::builder::PoolBuilder;
pub use self::checkout::PooledConnection;
use self::connections::Connections;
pub use self::entry::PoolEntry;
pub use self::error::{BuildError, CloseError, PoolError};
pub use self::evict::EvictReason;
pub use self::hooks::ConnectionMetadata;
pub use self::manager::{ConnectionManager, ManagerError};
#[cfg(feature = "blocking")]
pub(crate) use self::retry::{Attempt, Failed, Pauses};
pub use self::retry::{DatabaseFailure, Retry, RetryError, Work};
pub use self::stats::{Checks, Closed, Connects};
pub use self::status::Status;
use crate::connect::Establish;
use crate::connection::Connection;
use crate::policy::Policy;

/// A pool of connections that outlive Neon's scale to zero.
///
/// Cheap to clone; the clones are one pool. Nothing is sent before the first [`get`](Self::get), and an
/// idle pool sends nothing but the goodbye of a connection that is closed.
///
/// When the last clone is dropped without [`close`](Self::close), idle connections end, and those in use when they come
/// back. A connect that is under way goes on to its end, and the new connection is closed then.
pub struct Pool<C: Establish = Connection> {
    connections: Arc<Connections<C>>,
}

impl<C: Establish> Pool<C> {
    /// Returns the state of the pool at this moment.
    pub fn status(&self) -> Status {
        self.connections.status()
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.connections.state.policy
    }

    /// Evicts every connection that exists: idle ones at their next checkout, those in use when they come back. Call it
    /// after a failover, or a change of types in the database.
    pub fn invalidate_all(&self) {
        self.connections.state.generation.end_current();
    }

    /// Closes the pool: [`get`](Self::get) fails from now on, idle connections end with Terminate, and those in use
    /// have `patience` to come back.
    ///
    /// A check under way is waited for, as it holds a connection: for `validation_timeout` at most, if its server is silent. A
    /// connect under way ends at once. [`dedicated`](Self::dedicated) connections stay open.
    ///
    /// # Errors
    ///
    /// [`CloseError`] if a connection was still open then. Connections that come back later are closed all the same.
    pub async fn close(&self, patience: Duration) -> Result<(), CloseError> {
        self.connections.close();
        let closed = self.connections.state.connector.until_closed();
        let in_time = timeout(patience, closed).await;
        in_time.map_err(|_| CloseError {
            patience,
            status: Box::new(self.status()),
        })
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.connections.state.generation.is_closed()
    }
}

impl<C: Establish> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            connections: Arc::clone(&self.connections),
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
