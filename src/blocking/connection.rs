//! [`Connection`]: one connection, its own or a pool's.

use std::fmt;

use super::runtime::Runtime;
use crate::connect::CancelToken;
use crate::connection::TransactionBuilder;
#[cfg(feature = "r2d2")]
use crate::pool::PoolEntry;
use crate::pool::PooledConnection;
use crate::url::Endpoint;

/// A connection to Postgres for synchronous Diesel, direct or through any pooler: what `diesel::PgConnection` does,
/// without libpq.
///
/// One that a [`Pool`](super::Pool) has handed out goes back there when it is dropped. `Connection::establish` makes one of its own,
/// for scripts and migrations; it makes one attempt, within the URL's `connect_timeout`, by default 15 s.
///
/// It is as [`diesel_neon::Connection`](crate::Connection) on the wire: a statement takes one round trip, and BEGIN rides with the
/// first statement of its transaction. Rows are read as the iterator of `load_iter` is advanced. If that is dropped before
/// its end, the rest is read in front of the next response; if no row arrives for 500 ms, the statement is cancelled and
/// the connection closed.
///
/// What needs libpq itself is not here: `copy_from` and `copy_to` of Diesel's query builder, `PgRowByRowLoadingMode`, and
/// `#[derive(MultiConnection)]`. [`as_async`](Self::as_async) leads to COPY and to notifications.
///
/// Import [`PgConnection`] where Diesel's prelude is imported: a type called `Connection` hides Diesel's trait there.
pub struct Connection {
    /// `Some` until it is dropped.
    inner: Option<Inner>,
    pub(super) runtime: Runtime,
}

/// [`Connection`], under a name that does not hide Diesel's trait of that name.
///
/// ```no_run
/// use diesel::prelude::*;
/// use diesel_neon::blocking::PgConnection;
///
/// fn version(url: &str) -> Result<String, Box<dyn std::error::Error>> {
///     let mut connection = PgConnection::establish(url)?;
///     let version = diesel::dsl::sql::<diesel::sql_types::Text>("SHOW server_version");
///     Ok(version.get_result(&mut connection)?)
/// }
/// ```
pub type PgConnection = Connection;

/// The connection, by who takes it back.
pub(super) enum Inner {
    /// Nobody does.
    Own(Box<crate::Connection>),
    /// Its pool.
    Pooled(PooledConnection<'static>),
    /// A pool of r2d2's.
    #[cfg(feature = "r2d2")]
    Managed(PoolEntry<crate::Connection>),
}

impl Connection {
    pub(super) fn new(inner: Inner, runtime: Runtime) -> Self {
        Self {
            inner: Some(inner),
            runtime,
        }
    }

    /// Returns the asynchronous connection inside of this one, for what has no blocking form: COPY, notifications.
    /// [`block_on`](super::block_on) waits for its futures.
    ///
    /// ```no_run
    /// # use diesel_neon::blocking;
    /// # fn example(connection: &mut blocking::Connection) -> Result<usize, Box<dyn std::error::Error>> {
    /// let copied = blocking::block_on(async {
    ///     let mut copy = connection.as_async().copy_in("COPY books (title) FROM STDIN").await?;
    ///     copy.send(b"Dune\nEmma\n").await?;
    ///     copy.finish().await
    /// })??;
    /// # Ok(copied)
    /// # }
    /// ```
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "only dropping takes it"
    )]
    pub fn as_async(&mut self) -> &mut crate::Connection {
        match self.inner.as_mut().expect("it is not dropped") {
            Inner::Own(connection) => connection,
            Inner::Pooled(connection) => connection,
            #[cfg(feature = "r2d2")]
            Inner::Managed(entry) => entry,
        }
    }

    #[expect(clippy::expect_used, reason = "only dropping takes it")]
    fn shared(&self) -> &crate::Connection {
        match self.inner.as_ref().expect("it is not dropped") {
            Inner::Own(connection) => connection,
            Inner::Pooled(connection) => connection,
            #[cfg(feature = "r2d2")]
            Inner::Managed(entry) => entry,
        }
    }

    /// Returns the entry of a connection of r2d2's pool.
    #[cfg(feature = "r2d2")]
    pub(super) fn entry(&mut self) -> Option<&mut PoolEntry<crate::Connection>> {
        match &mut self.inner {
            Some(Inner::Managed(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Does asynchronous work on the connection, and waits for it.
    pub(super) fn wait<'c, F: Future>(
        &'c mut self,
        work: impl FnOnce(&'c mut crate::Connection) -> F,
    ) -> F::Output {
        let runtime = self.runtime;
        runtime.block_on(work(self.as_async()))
    }

    /// Returns whether the connection leads to Postgres itself or to a pooler.
    pub fn endpoint(&self) -> Endpoint {
        self.shared().endpoint()
    }

    /// Returns the value that the server last reported for a setting, such as `server_version`. Servers report some
    /// fifteen settings.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.shared().parameter(name)
    }

    /// Returns a token that cancels the statements of this connection from another thread, until the connection goes back
    /// to its pool. [`block_on`](super::block_on) waits for it.
    pub fn cancel_token(&self) -> CancelToken {
        self.shared().cancel_token()
    }

    /// Builds a transaction with an isolation level, an access mode, or deferral, as `diesel::PgConnection` does.
    ///
    /// ```no_run
    /// # use diesel_neon::blocking;
    /// # fn example(connection: &mut blocking::Connection) -> diesel::QueryResult<()> {
    /// connection
    ///     .build_transaction()
    ///     .serializable()
    ///     .read_only()
    ///     .deferrable()
    ///     .run(|connection| Ok(()))
    /// # }
    /// ```
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_, Self> {
        TransactionBuilder::new(self)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What the pool still has to do with it is done on its own runtime.
        let _entered = self.runtime.enter();
        self.inner = None;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(self.shared()).finish()
    }
}
