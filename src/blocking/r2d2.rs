//! [`ConnectionManager`]: the policies for a pool of r2d2's.

use std::thread::panicking;
use std::time::Duration;

use ::diesel::QueryResult;
use ::diesel::connection::SimpleConnection;
use ::diesel::r2d2::{Builder, HandleError, LoggingErrorHandler, ManageConnection, R2D2Connection};
use bb8::ManageConnection as _;
use diesel_async::pooled_connection::PoolableConnection;

use super::connection::{Connection, Inner};
use super::runtime::Runtime;
use crate::policy::Policy;
use crate::pool::{BuildError, EvictReason, ManagerError};
use crate::url::DatabaseUrl;
use crate::util::clock;

/// Makes and validates connections for a pool of r2d2's. [`Pool`](super::Pool) is the comfortable way.
///
/// The two share their validation: a connection past its deadline, lost or in a transaction is not handed out, and the check of
/// one is bounded and hedged: a spare connects beside a late one, r2d2's next connect takes it, and it is closed if r2d2 has
/// not taken it after 5 s. So a `CustomizeConnection` sees every connection. What r2d2 leaves no room for: its callers are
/// not served in their order, do not share a check that goes on, and are told why connecting fails only when their time
/// is over.
///
/// r2d2's own defaults keep a compute awake, since they replace idle connections as they expire. Begin with
/// [`pool_builder`](Self::pool_builder), which takes the policy's numbers.
///
/// Once somebody has asked for a connection, r2d2 connects until that succeeds, every 15 s or so (half of its
/// `connection_timeout`), even if nobody waits any more. If the server refuses it (a wrong password, no such database), the manager
/// answers from memory, as the error says: for as long again as the server has been refusing, 15 minutes at most, and 10 s if the
/// refusal may pass by itself. So what keeps a compute awake, or an account locked, becomes rare; and whoever has mended
/// the cause calls [`invalidate_all`](Self::invalidate_all), or waits. Other failures, such as a server that is
/// out of reach, are tried each time. So is an `on_acquire` that fails, on a new
/// connection each time, which does keep a compute awake; an [`EvictReason::Hook`] or [`EvictReason::CheckFailed`] that it returns is
/// logged.
///
/// With `pipeline_login=true` in the URL, a connect waits for the answer to its login nevertheless.
///
/// ```no_run
/// # use diesel_neon::{DatabaseUrl, Policy, blocking};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let url: DatabaseUrl = std::env::var("DATABASE_URL")?.parse()?;
/// let manager = blocking::ConnectionManager::new(&url, Policy::default())?;
/// let pool = manager.pool_builder().build(manager)?;
/// let mut connection = pool.get()?;
/// # drop(connection);
/// # Ok(())
/// # }
/// ```
///
/// `diesel::r2d2::ConnectionManager<blocking::Connection>` takes connections too, without the policies: no deadline before the
/// compute is suspended, no budget for a cold start, no bound for a check.
#[derive(Clone, Debug)]
pub struct ConnectionManager {
    inner: crate::pool::ConnectionManager,
    runtime: Runtime,
}

impl ConnectionManager {
    /// Prepares to connect to `url`; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`BuildError::Tls`] if the certificates to trust cannot be loaded, and [`BuildError::Runtime`].
    pub fn new(url: &DatabaseUrl, policy: Policy) -> Result<Self, BuildError> {
        Ok(Self {
            inner: crate::pool::ConnectionManager::remembering(url, policy, LONGEST)?,
            runtime: Runtime::get().map_err(BuildError::no_runtime)?,
        })
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        self.inner.policy()
    }

    /// Begins a pool of r2d2's with the policy's numbers, and with no connection that nobody has asked for. A failed connect
    /// is logged as r2d2 does it, as an error, and so is one of `on_acquire`; an eviction, by which the policies work, is not,
    /// unless the server has answered a check with an error.
    pub fn pool_builder(&self) -> Builder<Self> {
        let policy = self.policy();
        Builder::new()
            .max_size(policy.max_size())
            .min_idle(Some(policy.min_idle()))
            .max_lifetime(Some(policy.max_lifetime()))
            .idle_timeout(Some(policy.idle_timeout()))
            .connection_timeout(policy.checkout_timeout().min(clock::FAREST))
            .error_handler(Box::new(LogConnects))
            .test_on_check_out(true)
    }

    /// Evicts every connection that exists: idle ones at their next checkout, those in use when they come back. Forgets that
    /// the server has refused a connect.
    pub fn invalidate_all(&self) {
        self.inner.invalidate_all();
    }
}

impl ManageConnection for ConnectionManager {
    type Connection = Connection;
    type Error = ManagerError;

    fn connect(&self) -> Result<Connection, ManagerError> {
        let entry = self.runtime.block_on(self.inner.connect())?;
        Ok(Connection::new(Inner::Managed(entry), self.runtime))
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), ManagerError> {
        match connection.entry() {
            Some(entry) => self.runtime.block_on(self.inner.is_valid(entry)),
            // A customizer has put one of its own in the place of this manager's.
            None => unmanaged(connection).map_err(ManagerError::Evicted),
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        let _entered = self.runtime.enter();
        panicking()
            || match connection.entry() {
                Some(entry) => self.inner.has_broken(entry),
                None => R2D2Connection::is_broken(connection),
            }
    }
}

/// Returns why a connection that is not this manager's cannot be handed out.
fn unmanaged(connection: &mut Connection) -> Result<(), EvictReason> {
    if !R2D2Connection::is_broken(connection) {
        return Ok(());
    }
    Err(match connection.as_async().has_ended() {
        true => EvictReason::Ended {
            sqlstate: None,
            message: "the connection was closed".to_owned(),
        },
        false => EvictReason::InTransaction,
    })
}

/// Logs why there is no connection.
#[derive(Debug)]
struct LogConnects;

impl HandleError<ManagerError> for LogConnects {
    fn handle_error(&self, error: ManagerError) {
        if is_worth_a_line(&error) {
            LoggingErrorHandler.handle_error(error);
        }
    }
}

/// Returns whether an error is no eviction by which the policies work: the failure of a connect, an error with which the server
/// has answered a check, or that of an `on_acquire`.
fn is_worth_a_line(error: &ManagerError) -> bool {
    match error {
        ManagerError::Connect(_) => true,
        ManagerError::Evicted(reason) => matches!(
            reason,
            EvictReason::Hook { .. } | EvictReason::CheckFailed { .. }
        ),
    }
}

/// r2d2 connects whether or not anybody waits. A compute that each login wakes for five minutes then sleeps for most of the
/// time.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Lets diesel's own manager keep a connection, and r2d2's pooled connections be connections.
impl R2D2Connection for Connection {
    fn ping(&mut self) -> QueryResult<()> {
        self.batch_execute("")
    }

    fn is_broken(&mut self) -> bool {
        PoolableConnection::is_broken(self.as_async())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_a_customizer_is_logged_and_an_eviction_is_not() {
        let failed = EvictReason::CheckFailed {
            sqlstate: None,
            message: "permission denied".to_owned(),
        };
        let cases = [
            (EvictReason::Hook { hook: "on_acquire" }, true),
            (failed, true),
            (EvictReason::Lifetime, false),
            (EvictReason::Generation, false),
        ];
        for (reason, is_logged) in cases {
            let error = ManagerError::Evicted(reason);
            assert_eq!(is_worth_a_line(&error), is_logged, "{error}");
        }
    }
}
