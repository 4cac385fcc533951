//! [`TransactionBuilder`]: isolation, access and deferral.

use std::fmt;

use diesel::pg::{Pg, PgQueryBuilder};
use diesel::query_builder::{AstPass, QueryBuilder as _, QueryFragment};
use diesel::result::{Error, QueryResult};

use super::super::Connection;
use super::TransactionManager;
use super::scope::end;

impl Connection {
    /// Begins a transaction with more to say than [`transaction`](diesel_async::AsyncConnection::transaction) does.
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

/// Begins a transaction with more to say than BEGIN; see [`Connection::build_transaction`].
#[must_use = "a transaction runs when run() is called"]
pub struct TransactionBuilder<'a> {
    connection: &'a mut Connection,
    isolation: Option<&'static str>,
    access: Option<&'static str>,
    deferral: Option<&'static str>,
}

impl<'a> TransactionBuilder<'a> {
    pub(crate) fn new(connection: &'a mut Connection) -> Self {
        Self {
            connection,
            isolation: None,
            access: None,
            deferral: None,
        }
    }

    /// `ISOLATION LEVEL READ COMMITTED`, which is what servers do by default.
    pub fn read_committed(mut self) -> Self {
        self.isolation = Some(" ISOLATION LEVEL READ COMMITTED");
        self
    }

    /// `ISOLATION LEVEL REPEATABLE READ`.
    pub fn repeatable_read(mut self) -> Self {
        self.isolation = Some(" ISOLATION LEVEL REPEATABLE READ");
        self
    }

    /// `ISOLATION LEVEL SERIALIZABLE`.
    pub fn serializable(mut self) -> Self {
        self.isolation = Some(" ISOLATION LEVEL SERIALIZABLE");
        self
    }

    /// `READ ONLY`.
    pub fn read_only(mut self) -> Self {
        self.access = Some(" READ ONLY");
        self
    }

    /// `READ WRITE`, which is what servers do by default.
    pub fn read_write(mut self) -> Self {
        self.access = Some(" READ WRITE");
        self
    }

    /// `DEFERRABLE`: a serializable, read only transaction waits at its start until nothing can make
    /// it fail.
    pub fn deferrable(mut self) -> Self {
        self.deferral = Some(" DEFERRABLE");
        self
    }

    /// `NOT DEFERRABLE`, which is what servers do by default.
    pub fn not_deferrable(mut self) -> Self {
        self.deferral = Some(" NOT DEFERRABLE");
        self
    }

    /// Runs `f` in the transaction: commits where it returns `Ok`, else rolls back.
    ///
    /// # Errors
    ///
    /// What `f` returns; [`Error::AlreadyInTransaction`] inside of a transaction; why it could not be
    /// committed or rolled back.
    pub async fn run<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&mut Connection) -> Result<T, E>,
        E: From<Error>,
    {
        let mut begin = PgQueryBuilder::default();
        self.to_sql(&mut begin, &Pg)?;
        TransactionManager::begin_with(self.connection, begin.finish())?;
        let unfinished = self.connection.session.monitor().begin();
        let done = f(&mut *self.connection).await;
        let ended = end(self.connection, done).await;
        unfinished.end();
        ended
    }
}

/// The BEGIN that [`run`](TransactionBuilder::run) sends.
impl QueryFragment<Pg> for TransactionBuilder<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("BEGIN TRANSACTION");
        for part in [self.isolation, self.access, self.deferral] {
            out.push_sql(part.unwrap_or_default());
        }
        Ok(())
    }
}

impl fmt::Debug for TransactionBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionBuilder")
            .field("isolation", &self.isolation)
            .field("access", &self.access)
            .field("deferral", &self.deferral)
            .finish_non_exhaustive()
    }
}
