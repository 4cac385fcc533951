//! [`TransactionBuilder`]: a transaction's isolation, access mode and deferral.

use std::fmt;

use diesel::pg::{Pg, PgQueryBuilder};
use diesel::query_builder::{AstPass, QueryBuilder as _, QueryFragment};
use diesel::result::{Error, QueryResult};

use super::super::Connection;
use super::TransactionManager;
use super::scope::end;

impl Connection {
    /// Builds a transaction with an isolation level, an access mode, or deferral, which
    /// [`transaction`](diesel_async::AsyncConnection::transaction) does not set.
    ///
    /// ```no_run
    /// # async fn example(connection: &mut diesel_neon::Connection) -> diesel::QueryResult<()> {
    /// connection
    ///     .build_transaction()
    ///     .serializable()
    ///     .read_only()
    ///     .deferrable()
    ///     .run(async |connection| Ok(()))
    ///     .await
    /// # }
    /// ```
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_> {
        TransactionBuilder::new(self)
    }
}

/// Sets the modes of a transaction; see [`Connection::build_transaction`]. A mode that is not set is the server's default.
#[must_use = "a transaction runs when run() is called"]
pub struct TransactionBuilder<'a, C = Connection> {
    pub(crate) connection: &'a mut C,
    isolation: Option<&'static str>,
    access: Option<&'static str>,
    deferral: Option<&'static str>,
}

impl<'a, C> TransactionBuilder<'a, C> {
    pub(crate) fn new(connection: &'a mut C) -> Self {
        Self {
            connection,
            isolation: None,
            access: None,
            deferral: None,
        }
    }

    /// Sets `ISOLATION LEVEL READ COMMITTED`, Postgres's default.
    pub fn read_committed(mut self) -> Self {
        self.isolation = Some(" ISOLATION LEVEL READ COMMITTED");
        self
    }

    /// Sets `ISOLATION LEVEL REPEATABLE READ`.
    pub fn repeatable_read(mut self) -> Self {
        self.isolation = Some(" ISOLATION LEVEL REPEATABLE READ");
        self
    }

    /// Sets `ISOLATION LEVEL SERIALIZABLE`.
    pub fn serializable(mut self) -> Self {
        self.isolation = Some(" ISOLATION LEVEL SERIALIZABLE");
        self
    }

    /// Sets `READ ONLY`.
    pub fn read_only(mut self) -> Self {
        self.access = Some(" READ ONLY");
        self
    }

    /// Sets `READ WRITE`, Postgres's default.
    pub fn read_write(mut self) -> Self {
        self.access = Some(" READ WRITE");
        self
    }

    /// Sets `DEFERRABLE`: a serializable, read-only transaction waits at its start until no serialization failure can
    /// end it.
    pub fn deferrable(mut self) -> Self {
        self.deferral = Some(" DEFERRABLE");
        self
    }

    /// Sets `NOT DEFERRABLE`, Postgres's default.
    pub fn not_deferrable(mut self) -> Self {
        self.deferral = Some(" NOT DEFERRABLE");
        self
    }

    /// Renders the BEGIN.
    pub(crate) fn begin(&self) -> QueryResult<String> {
        let mut begin = PgQueryBuilder::default();
        self.to_sql(&mut begin, &Pg)?;
        Ok(begin.finish())
    }
}

impl TransactionBuilder<'_> {
    /// Runs `f` in the transaction: commits if `f` returns `Ok`, else rolls back.
    ///
    /// # Errors
    ///
    /// The error of `f`; [`Error::AlreadyInTransaction`] inside a transaction; the error of the COMMIT or the ROLLBACK.
    pub async fn run<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&mut Connection) -> Result<T, E>,
        E: From<Error>,
    {
        let begin = self.begin()?;
        TransactionManager::begin_with(self.connection, begin)?;
        let guard = self.connection.session.monitor().begin();
        let outcome = f(&mut *self.connection).await;
        let ended = end(self.connection, outcome).await;
        guard.end();
        ended
    }
}

/// Renders the BEGIN that `run` sends.
impl<C> QueryFragment<Pg> for TransactionBuilder<'_, C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("BEGIN TRANSACTION");
        for part in [self.isolation, self.access, self.deferral] {
            out.push_sql(part.unwrap_or_default());
        }
        Ok(())
    }
}

impl<C> fmt::Debug for TransactionBuilder<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionBuilder")
            .field("isolation", &self.isolation)
            .field("access", &self.access)
            .field("deferral", &self.deferral)
            .finish_non_exhaustive()
    }
}
