//! [`Pool`]: what a synchronous application holds.

use std::fmt;
use std::time::Duration;

use diesel::Connection as _;
use diesel::result::Error;

use super::connection::{Connection, Inner};
use super::runtime::Runtime;
use crate::policy::Policy;
use crate::pool::{BuildError, CloseError, PoolBuilder, PoolError, PooledConnection, Status};
use crate::url::{DatabaseUrl, UrlError};

/// A pool of connections that outlive Neon's scale to zero, for synchronous Diesel: [`diesel_neon::Pool`](crate::Pool) with methods
/// that block.
///
/// Cheap to clone; the clones are one pool. Nothing is sent before the first [`get`](Self::get), and an idle pool sends not
/// one byte.
#[derive(Clone)]
pub struct Pool {
    pub(super) inner: crate::Pool,
    pub(super) runtime: Runtime,
}

impl PoolBuilder {
    /// Builds a pool for synchronous Diesel. No connection is made yet, unless the policy asks for idle ones.
    ///
    /// Hooks and instrumentation are those of the asynchronous pool. They may call a synchronous pool themselves; what
    /// else blocks there, such as `std::thread::sleep`, holds up the one worker of all of them.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build_blocking(self) -> Result<Pool, BuildError> {
        Pool::made(|| self.build())
    }
}

impl Pool {
    /// Builds a pool for the URL in the environment, or in the nearest `.env` file, with the default [`Policy`]; see
    /// [`diesel_neon::Pool::from_env`](crate::Pool::from_env).
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn from_env() -> Result<Self, BuildError> {
        Self::made(crate::Pool::from_env)
    }

    /// Begins a pool for `url`, a [`DatabaseUrl`] or its text. [`PoolBuilder::build_blocking`] makes it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use diesel_neon::{BuildError, blocking};
    /// let pool = blocking::Pool::builder("postgresql://user@localhost/db")
    ///     .max_size(20)
    ///     .checkout_timeout(Duration::from_secs(10))
    ///     .build_blocking()?;
    /// # Ok::<_, BuildError>(())
    /// ```
    pub fn builder<U>(url: U) -> PoolBuilder
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        PoolBuilder::new(url)
    }

    fn made(make: impl FnOnce() -> Result<crate::Pool, BuildError>) -> Result<Self, BuildError> {
        let runtime = Runtime::get().map_err(BuildError::no_runtime)?;
        let _entered = runtime.enter();
        Ok(Self {
            inner: make()?,
            runtime,
        })
    }

    /// Gets a connection that works, and waits for it up to the policy's `checkout_timeout`. Callers are served in the
    /// order in which they came.
    ///
    /// # Errors
    ///
    /// As [`diesel_neon::Pool::get`](crate::Pool::get).
    #[track_caller]
    pub fn get(&self) -> Result<Connection, PoolError> {
        let checkout = self.inner.get_owned();
        let connection = self.runtime.block_on(checkout)?;
        Ok(self.wrap(connection))
    }

    /// Gets a connection that works within `timeout`, which takes the place of the policy's `checkout_timeout`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> Result<Connection, PoolError> {
        let checkout = self.inner.get_owned_timeout(timeout);
        let connection = self.runtime.block_on(checkout)?;
        Ok(self.wrap(connection))
    }

    /// Returns an idle connection that was heard from within the policy's `validation_bypass`, if there is one and nobody
    /// waits for it. Sends nothing, so with a hook [`before_acquire`](PoolBuilder::before_acquire) it only returns
    /// connections that nobody has held.
    #[track_caller]
    pub fn try_get(&self) -> Option<Connection> {
        let _entered = self.runtime.enter();
        let connection = self.inner.try_get_owned()?;
        Some(self.wrap(connection))
    }

    pub(super) fn wrap(&self, connection: PooledConnection<'static>) -> Connection {
        Connection::new(Inner::Pooled(connection), self.runtime)
    }

    /// Gets a connection and runs `work` in a transaction on it, once: commits if it returns `Ok`, else rolls back.
    ///
    /// [`retry`](Self::retry) runs it again after failures that leave nothing behind.
    ///
    /// # Errors
    ///
    /// The error of `work`, or the reason why there is no connection, or why the transaction could not begin, commit or
    /// roll back.
    #[track_caller]
    pub fn transaction<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E>,
        E: From<PoolError> + From<Error>,
    {
        self.get()?.transaction(work)
    }

    /// Makes a connection of its own on the direct endpoint, for advisory locks and other state of a session; see
    /// [`diesel_neon::Pool::dedicated`](crate::Pool::dedicated).
    ///
    /// # Errors
    ///
    /// As [`diesel_neon::Pool::dedicated`](crate::Pool::dedicated).
    pub fn dedicated(&self) -> Result<Connection, PoolError> {
        let connection = self.runtime.block_on(self.inner.dedicated())?;
        Ok(Connection::new(
            Inner::Own(Box::new(connection)),
            self.runtime,
        ))
    }

    /// Returns the state of the pool at this moment.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        self.inner.policy()
    }

    /// Evicts every connection that exists: idle ones at their next checkout, those in use when they come back. Call it
    /// after a failover, or a change of types in the database.
    pub fn invalidate_all(&self) {
        self.inner.invalidate_all();
    }

    /// Closes the pool: [`get`](Self::get) fails from now on, idle connections end with Terminate, and those in use
    /// have `patience` to come back; see [`diesel_neon::Pool::close`](crate::Pool::close).
    ///
    /// # Errors
    ///
    /// [`CloseError`] if a connection was still open then. Connections that come back later are closed all the same.
    pub fn close(&self, patience: Duration) -> Result<(), CloseError> {
        self.runtime.block_on(self.inner.close(patience))
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
