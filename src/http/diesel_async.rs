//! The traits of diesel-async for [`HttpConnection`].

use diesel::associations::{HasTable, Identifiable};
use diesel::connection::{CacheSize, Instrumentation, TransactionManagerStatus};
use diesel::pg::Pg;
use diesel::query_builder::{
    AsChangeset, AsQuery, IntoUpdateTarget, QueryFragment, QueryId, UpdateStatement,
};
use diesel::query_dsl::methods::FindDsl;
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use diesel_async::methods::LoadQuery;
use diesel_async::{
    AsyncConnection, AsyncConnectionCore, RunQueryDsl, SimpleAsyncConnection, UpdateAndFetchResults,
};
use futures_util::future::BoxFuture;

use super::builder::BuildError;
use super::connection::HttpConnection;
use super::rows::Rows;
use super::transaction::HttpTransactionManager;
use crate::query::Row;
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

impl<'b, Changes, Output, Tab, V> UpdateAndFetchResults<Changes, Output> for HttpConnection
where
    Output: Send + 'static,
    Changes: Copy + AsChangeset<Target = Tab> + Send + Identifiable<Table = Tab>,
    Tab: diesel::Table + FindDsl<Changes::Id> + 'b,
    diesel::dsl::Find<Tab, Changes::Id>: IntoUpdateTarget<Table = Tab, WhereClause = V>,
    UpdateStatement<Tab, V, Changes::Changeset>: AsQuery,
    diesel::dsl::Update<Changes, Changes>: LoadQuery<'b, Self, Output>,
    V: Send + 'b,
    Changes::Changeset: Send + 'b,
    Tab::FromClause: Send,
    Changes: HasTable<Table = Tab>,
{
    fn update_and_fetch<'conn, 'changes>(
        &'conn mut self,
        changeset: Changes,
    ) -> BoxFuture<'changes, QueryResult<Output>>
    where
        Changes: 'changes,
        Changes::Changeset: 'changes,
        'conn: 'changes,
        Self: 'changes,
    {
        Box::pin(async move {
            let update = diesel::update(changeset).set(changeset);
            update.get_result(self).await
        })
    }
}
