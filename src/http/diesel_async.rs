//! The traits of diesel-async for [`HttpConnection`].

use diesel::connection::{CacheSize, Instrumentation, TransactionManagerStatus};
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use diesel_async::{AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection};
use futures_util::future::BoxFuture;

use super::builder::BuildError;
use super::connection::HttpConnection;
use super::rows::Rows;
use super::transaction::HttpTransactionManager;
use crate::query::{Row, impl_save_changes};
use crate::util::error_chain::chain;

/// Several statements in one text run as one transaction.
impl SimpleAsyncConnection for HttpConnection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.execute_script(query).await
    }
}

impl SimpleAsyncConnection for &HttpConnection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.execute_script(query).await
    }
}

impl AsyncConnectionCore for HttpConnection {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<Rows>>;
    type Stream<'conn, 'query> = Rows;
    type Row<'conn, 'query> = Row;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        self.load_rows(source)
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        self.execute_query(source)
    }
}

/// Statements through shared references run at the same time.
impl<'a> AsyncConnectionCore for &'a HttpConnection {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'a, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'a, QueryResult<Rows>>;
    type Stream<'conn, 'query> = Rows;
    type Row<'conn, 'query> = Row;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let this: &'a HttpConnection = self;
        this.load_rows(source)
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let this: &'a HttpConnection = self;
        this.execute_query(source)
    }
}

impl AsyncConnection for HttpConnection {
    type TransactionManager = HttpTransactionManager;

    /// Makes a connection with the default settings, as [`new`](Self::new) does. Nothing is sent before the first
    /// statement.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::InvalidConnectionUrl`] if the URL is wrong, or asks for what only a session can have;
    /// [`ConnectionError::BadConnection`] if the certificates to trust cannot be loaded.
    async fn establish(url: &str) -> ConnectionResult<Self> {
        let built = Self::builder(url).untimed().build();
        built.map_err(|error| match error {
            BuildError::Url(_) | BuildError::Policy(_) => {
                ConnectionError::InvalidConnectionUrl(error.to_string())
            }
            BuildError::Tls(_) => ConnectionError::BadConnection(chain(&error)),
        })
    }

    fn transaction_state(&mut self) -> &mut TransactionManagerStatus {
        self.transactions()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.reporter()
    }

    /// Sets the instrumentation of this connection and its clones.
    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.reporter().replace(instrumentation);
    }

    /// Does nothing: no statement is kept on the server.
    fn set_prepared_statement_cache_size(&mut self, _: CacheSize) {}
}

impl_save_changes!(HttpConnection);
