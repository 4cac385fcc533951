//! Diesel's traits for [`Connection`].

use std::fmt;
use std::pin::Pin;

use diesel::associations::HasTable;
use diesel::connection::{
    CacheSize, ConnectionSealed, Instrumentation, LoadConnection, SimpleConnection,
};
use diesel::dsl::Update;
use diesel::expression::{MixedAggregates, QueryMetadata, ValidGrouping, is_aggregate};
use diesel::migration::{CREATE_MIGRATIONS_TABLE, MigrationConnection};
use diesel::pg::Pg;
use diesel::query_builder::{AsChangeset, IntoUpdateTarget, Query, QueryFragment, QueryId};
use diesel::query_dsl::methods::LoadQuery;
use diesel::query_dsl::{RunQueryDsl, UpdateAndFetchResults};
use diesel::{ConnectionError, ConnectionResult, QueryResult, Table};
use diesel_async::{AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection};
use futures_util::Stream;
use futures_util::future::poll_fn;

use super::connection::{Connection, Inner};
use super::runtime::Runtime;
use super::transaction::TransactionManager;
use crate::connection::{RowStream, TransactionState};
use crate::query::Row;

impl SimpleConnection for Connection {
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.wait(|connection| connection.batch_execute(query))
    }
}

impl ConnectionSealed for Connection {}

impl diesel::Connection for Connection {
    type Backend = Pg;
    type TransactionManager = TransactionManager;

    fn establish(url: &str) -> ConnectionResult<Self> {
        let runtime = Runtime::get();
        let runtime = runtime.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
        let connection = runtime.block_on(crate::Connection::establish(url))?;
        Ok(Self::new(Inner::Own(Box::new(connection)), runtime))
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Pg> + QueryId,
    {
        self.wait(|connection| connection.execute_returning_count(source))
    }

    fn transaction_state(&mut self) -> &mut TransactionState {
        self.as_async().transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.as_async().instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.as_async().set_instrumentation(instrumentation);
    }

    /// Stops naming statements if `size` is `Disabled`; otherwise the policy's bound applies.
    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.as_async().set_prepared_statement_cache_size(size);
    }
}

impl LoadConnection for Connection {
    type Cursor<'conn, 'query> = Cursor<'conn>;
    type Row<'conn, 'query> = Row;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Cursor<'conn>>
    where
        T: Query + QueryFragment<Pg> + QueryId + 'query,
        Pg: QueryMetadata<T::SqlType>,
    {
        let runtime = self.runtime;
        let mut rows = self.wait(|connection| connection.load(source))?;
        // Whoever drops an iterator can do without the rest.
        rows.set_satisfied();
        Ok(Cursor { rows, runtime })
    }
}

/// The rows of a statement of a [`Connection`], read from the server as the iterator is advanced.
#[must_use = "rows are read as the iterator is advanced"]
pub struct Cursor<'conn> {
    rows: RowStream<'conn>,
    runtime: Runtime,
}

impl Iterator for Cursor<'_> {
    type Item = QueryResult<Row>;

    fn next(&mut self) -> Option<QueryResult<Row>> {
        let rows = &mut self.rows;
        self.runtime
            .block_on(poll_fn(|cx| Pin::new(&mut *rows).poll_next(cx)))
    }
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cursor").field(&self.rows).finish()
    }
}

/// `save_changes`, with the bounds that Diesel has for its own connection.
impl<'b, Changes, Output> UpdateAndFetchResults<Changes, Output> for Connection
where
    Changes: Copy + AsChangeset<Target = <Changes as HasTable>::Table> + IntoUpdateTarget,
    Update<Changes, Changes>: LoadQuery<'b, Self, Output>,
    <Changes::Table as Table>::AllColumns: ValidGrouping<()>,
    <<Changes::Table as Table>::AllColumns as ValidGrouping<()>>::IsAggregate:
        MixedAggregates<is_aggregate::No, Output = is_aggregate::No>,
{
    fn update_and_fetch(&mut self, changeset: Changes) -> QueryResult<Output> {
        diesel::update(changeset).set(changeset).get_result(self)
    }
}

/// Lets diesel_migrations' `MigrationHarness` run here. [`Migrator`](crate::migration::Migrator) also takes a lock.
impl MigrationConnection for Connection {
    fn setup(&mut self) -> QueryResult<usize> {
        diesel::sql_query(CREATE_MIGRATIONS_TABLE).execute(self)
    }
}
