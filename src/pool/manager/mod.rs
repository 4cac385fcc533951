//! [`ConnectionManager`]: the policies for a bb8 pool that is built by hand.
//!
//! - [`hedge`]: its checks, which make a spare if an answer is late; [`spares`] wait for the pool's next connect.
//! - [`refusals`]: for how long a refusal of the server's takes the place of further connects.
//! - [`shared`]: what its clones share.

mod error;
mod hedge;
mod refusals;
mod shared;
mod spares;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::error::ManagerError;
use self::shared::Shared;
use super::entry::PoolEntry;
use super::error::BuildError;
use super::state::PoolState;
use crate::connect::Establish;
use crate::connection::Connection;
use crate::policy::Policy;
use crate::url::DatabaseUrl;

/// Makes and validates connections: a plain [`bb8::ManageConnection`] for a [`bb8::Pool`] that is built by hand.
/// [`Pool`](crate::Pool) is the comfortable way.
///
/// The two share their validation. What bb8 leaves no room for: its callers do not hear why connecting fails, are not
/// served in their order, and do not share a check that goes on. A late check is hedged: a spare connects in parallel. If that
/// is ready first, the late connection is closed, and bb8's next connect takes the spare, beyond `max_size` until then; it is
/// closed if bb8 has not taken it after 5 s. Once one was found dead or late, the spare for every sibling connects at once, or
/// one that waits already serves, after half of the time in which an answer becomes late.
///
/// bb8 goes on connecting for as long as a caller may wait. Once the server has refused a connect (a wrong password, no
/// such database), the manager answers from memory, as the error says: for as long again as the server has been refusing,
/// between a second and 10 s. [`invalidate_all`](Self::invalidate_all) forgets it. With `pipeline_login=true` in the URL, a connect
/// waits for the answer to its login nevertheless.
///
/// Set the `max_lifetime` and `idle_timeout` of such a pool to the policy's, so that idle connections are closed and
/// not just never handed out, and leave `test_on_check_out` on. bb8 reports every failure as `RunError::TimedOut`.
///
/// ```no_run
/// # use diesel_neon::{ConnectionManager, DatabaseUrl, Policy};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let url: DatabaseUrl = std::env::var("DATABASE_URL")?.parse()?;
/// let policy = Policy::default();
/// let manager: ConnectionManager = ConnectionManager::new(&url, policy)?;
/// let pool = bb8::Pool::builder()
///     .max_lifetime(Some(policy.max_lifetime()))
///     .idle_timeout(Some(policy.idle_timeout()))
///     .build(manager)
///     .await?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
///
/// The hooks and the instrumentation of a [`PoolBuilder`](crate::PoolBuilder) are the pool's own. bb8 has its
/// `CustomizeConnection` for what is to be done with each new connection (`bb8::Builder::connection_customizer`), outside
/// of the budget of a connect.
///
/// bb8's pooled connections deref to a connection, so they have diesel-async's own `transaction`. If its future is
/// dropped, later statements run inside of the transaction that it has left open. The connection's own `transaction`
/// refuses them (see [`AbandonedTransaction`](crate::AbandonedTransaction)): call that one if its future may be dropped
/// and the connection is used afterwards.
///
/// ```no_run
/// # use diesel_async::AsyncConnection;
/// # use diesel_neon::{Connection, ConnectionManager};
/// # async fn example(pool: bb8::Pool<ConnectionManager>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut pooled = pool.get().await?;
/// let connection: &mut Connection = &mut pooled;
/// connection
///     .transaction(async |connection| Ok::<_, diesel::result::Error>(()))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share their state.
pub struct ConnectionManager<C = Connection> {
    shared: Arc<Shared<C>>,
}

impl<C: Establish> ConnectionManager<C> {
    /// Prepares to connect to `url`; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnsafeBehindPooler`] if the type of connection is not safe there, unless the policy says that the
    /// pooler tracks prepared statements; [`BuildError::Tls`] if the certificates to trust cannot be loaded.
    pub fn new(url: &DatabaseUrl, policy: Policy) -> Result<Self, BuildError> {
        Self::remembering(url, policy, LONGEST_FOR_CALLERS)
    }

    /// As [`new`](Self::new), and remembers a refusal for `longest` at most.
    pub(crate) fn remembering(
        url: &DatabaseUrl,
        policy: Policy,
        longest: Duration,
    ) -> Result<Self, BuildError> {
        // A refusal is to be the error of the connect: it takes the place of the next ones.
        let url = url.with_pipelined_login(false);
        let state = PoolState::new::<C>(&url, policy)?;
        Ok(Self {
            shared: Arc::new(Shared::new(state, longest)),
        })
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.shared.state.policy
    }

    /// Evicts every connection that exists: idle ones at their next checkout, those in use when they come back. Forgets that
    /// the server has refused a connect.
    pub fn invalidate_all(&self) {
        self.shared.state.generation.end_current();
    }
}

impl<C: Establish> bb8::ManageConnection for ConnectionManager<C> {
    type Connection = PoolEntry<C>;
    type Error = ManagerError;

    async fn connect(&self) -> Result<PoolEntry<C>, ManagerError> {
        self.shared.connect().await
    }

    async fn is_valid(&self, entry: &mut PoolEntry<C>) -> Result<(), ManagerError> {
        let validated = self.shared.validate(entry).await;
        validated.map_err(ManagerError::Evicted)
    }

    fn has_broken(&self, entry: &mut PoolEntry<C>) -> bool {
        !self.shared.keep(entry)
    }
}

impl<C> Clone for ConnectionManager<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C> fmt::Debug for ConnectionManager<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionManager")
            .field("state", &self.shared.state)
            .finish()
    }
}

/// bb8 connects for callers alone: they wait no longer than this for a server that has changed its mind.
const LONGEST_FOR_CALLERS: Duration = Duration::from_secs(10);
