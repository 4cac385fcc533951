//! [`HttpConnection`]: Diesel's queries over HTTPS.

use std::fmt;
use std::sync::Arc;

use diesel::QueryResult;
use diesel::connection::TransactionManagerStatus;
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::batch::{Batch, run_all};
use super::report::Reporter;
use super::rows::Rows;
use super::sent::{Wanted, wanted};
use super::shared::Shared;
use super::statement::Statement;

/// Statements over HTTPS to Neon, each a transaction of its own.
///
/// There is no session to open and none to lose. A statement takes one round trip on a connection that is kept, and two on a
/// new one behind TCP's own. Many run at a time on one connection with HTTP/2, 100 at most, so no pool is needed: clone it, or
/// share it by reference, for `&HttpConnection` runs statements too. Nothing is sent while no statement runs, and the connection is closed
/// with the last clone. One that has gone silent is replaced.
///
/// Each runtime has connections of its own, and a request is a task on it: one that is late to be polled is in nobody's way.
///
/// Diesel's queries give what they give on a [`Connection`](crate::Connection). These are the differences:
///
/// - [`transaction`](diesel_async::AsyncConnection::transaction) fails with [`TransactionUnsupported`](super::TransactionUnsupported) before
///   its closure is called. [`batch`](Self::batch) sends several statements as one transaction.
/// - Nothing of a session lasts: `SET`, temporary tables, `LISTEN` and advisory locks end with their request. The URL may have no
///   `options` but the endpoint's. COPY does not work, and notices are lost.
/// - Rows arrive as a whole. Neon returns 10 MiB at most, and takes requests of 10 MiB.
/// - Rows have the names of their columns only for [`sql_query`](diesel::sql_query), where Diesel asks for them.
/// - Statements run in UTC, as on a `Connection`, but for those that are no query and no DML, by themselves: in `CREATE TABLE`,
///   `CALL` and `EXPLAIN` a role's own time zone counts, which `ALTER ROLE … SET timezone TO 'UTC'` changes. As long as that zone is
///   not known to be UTC, statements run in a transaction whose first statement sets it; the zone is looked at once,
///   and not at all if the URL has several hosts.
/// - DML with RETURNING fails on a table with a rule that makes several statements of it.
/// - A column of a domain has the domain's own OID, but for `sql_query`; only a `FromSql` that asks for the OID can tell.
/// - EXPLAIN, SHOW and CALL return text, numbers and booleans alone; see [`RowsUnsupported`](super::RowsUnsupported).
/// - Bind parameters travel as text, without loss. A type whose text form is not known here is refused with
///   [`ParameterUnsupported`](super::ParameterUnsupported) before anything is sent: geometry, text search vectors, and the types
///   of most extensions; `citext`, `ltree` and `vector` are known.
///
/// An error says whether the statement may have run: if it was not sent,
/// [`is_undelivered`](crate::DatabaseErrorExt::is_undelivered) is true, and it is safe to send it again. A request that
/// was certainly not run, because the compute could not be reached for example, is sent again by itself within the policy's
/// `connect_timeout`. If a future is dropped, its statement is cancelled, unless it is answered within 100 ms.
///
/// TLS is always verified, and proxies are those of the environment, as for a WebSocket.
pub struct HttpConnection {
    shared: Arc<Shared>,
    reporter: Reporter,
    transactions: TransactionManagerStatus,
}

impl HttpConnection {
    /// Begins a batch: several statements that are sent at once, and run as one transaction.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.shared, &self.reporter)
    }

    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            reporter: Reporter::new(),
            transactions: TransactionManagerStatus::default(),
        }
    }

    pub(super) fn transactions(&mut self) -> &mut TransactionManagerStatus {
        &mut self.transactions
    }

    pub(super) fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }

    pub(super) fn load_rows<'a, T>(&'a self, source: T) -> BoxFuture<'a, QueryResult<Rows>>
    where
        T: AsQuery,
        T::Query: QueryFragment<Pg> + QueryId,
    {
        let query = source.as_query();
        let (sql, statement) = Statement::new(&query, wanted::<T::SqlType>()).take_sql();
        let started = self.reporter.start(&query, sql);
        async move {
            let done = self.shared.load_statement(started.sql(), statement).await;
            started.finish(done)
        }
        .boxed()
    }

    pub(super) fn execute_query<'a>(
        &'a self,
        query: impl QueryFragment<Pg>,
    ) -> BoxFuture<'a, QueryResult<usize>> {
        let (sql, statement) = Statement::new(&query, Wanted::Count).take_sql();
        let started = self.reporter.start(&query, sql);
        async move {
            let done = self
                .shared
                .execute_statement(started.sql(), statement)
                .await;
            started.finish(done)
        }
        .boxed()
    }

    pub(super) async fn execute_script(&self, sql: &str) -> QueryResult<()> {
        let started = self.reporter.start_sql(sql.to_owned());
        started.finish(run_all(&self.shared, sql).await)
    }
}

/// A clone shares the connection, the types that were looked up, and instrumentation.
impl Clone for HttpConnection {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            reporter: self.reporter.clone(),
            transactions: TransactionManagerStatus::default(),
        }
    }
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnection")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
