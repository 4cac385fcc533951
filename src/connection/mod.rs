//! [`Connection`]: one flight a statement, and safe behind any pooler.

mod copy;
mod diesel_async;
mod error;
mod notifications;
mod poolable;
mod probe;
mod response_head;
mod row_stream;
mod run;
mod save;
mod send;
mod setup;
mod simple;
mod statement;
mod statement_cache;
mod time_zone;
pub(crate) mod transaction;
mod types;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{DynInstrumentation, InstrumentationEvent, StrQueryHelper};
use diesel::pg::PgMetadataCache;
use diesel::result::Error;

pub use self::copy::{CopyIn, CopyOut};
pub use self::error::{
    AbandonedTransaction, UnreadRows, internal_query, is_connection_lost, is_response_timeout,
    is_transient, sqlstate,
};
pub use self::notifications::ListenUnsupported;
pub use self::row_stream::RowStream;
use self::statement_cache::StatementCache;
pub use self::time_zone::is_utc;
pub use self::transaction::{TransactionBuilder, TransactionManager, TransactionState};
use crate::connect::CancelToken;
use crate::pooler::PoolerSupport;
use crate::session::SessionHandle;
use crate::url::Endpoint;

/// A connection to Postgres for Diesel, direct or through any pooler.
///
/// It does what [`AsyncPgConnection`](::diesel_async::AsyncPgConnection) does, in fewer round trips:
///
/// - A statement takes one. So do `sql_query`, changesets and batch inserts, which Diesel cannot cache.
/// - BEGIN rides with the first statement of a transaction, a savepoint with the first one behind it. A
///   transaction without statements sends nothing.
/// - Connecting takes none behind the handshake, where the server's time zone is UTC.
///
/// Behind a pooler that does not track prepared statements, none that has a name ever leaves, whatever
/// its types.
///
/// Instrumentation is told of BEGIN, SAVEPOINT and what ends them as Diesel's own connections tell it, also
/// where they ride with a statement or are never sent; a BEGIN that fails shows with the statement that it
/// rode with.
///
/// diesel-async's managers for deadpool, mobc and bb8 take it too. They know none of [`Pool`](crate::Pool)'s
/// policies: no deadline before the compute's suspension, no retry and no budget for a cold start, no
/// checks of siblings, no wait for what is unfinished; and theirs checks a connection each time it is
/// handed out, or not at all.
///
/// A future that is dropped in the middle has its statement cancelled, if its answer does not come in at
/// once, and then the connection is closed; see [`Pool`](crate::Pool). A transaction that is dropped lets
/// nothing else run: see [`AbandonedTransaction`].
///
/// The last row of a result is handed out once the server has said that all is well, so that
/// `get_result` of an `INSERT … RETURNING` is not `Ok` where the commit fails.
pub struct Connection {
    session: Arc<SessionHandle>,
    pooler: Arc<PoolerSupport>,
    transactions: TransactionState,
    types: Mutex<PgMetadataCache>,
    statements: StatementCache,
    instrumentation: Mutex<DynInstrumentation>,
}

impl Connection {
    /// Whether this leads to Postgres itself or to its pooler.
    pub fn endpoint(&self) -> Endpoint {
        self.pooler.endpoint()
    }

    /// What the server last reported of one of its settings, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.session.status().parameter(name)
    }

    /// Stops this connection's statements from elsewhere, until it goes back to its pool.
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(&self.session)
    }

    /// Tells instrumentation that a statement starts.
    fn record_start(&self, sql: &str) {
        let query = StrQueryHelper::new(sql);
        self.record(InstrumentationEvent::start_query(&query));
    }

    /// Tells instrumentation how a statement has ended.
    fn record_finish(&self, sql: &str, error: Option<&Error>) {
        let query = StrQueryHelper::new(sql);
        self.record(InstrumentationEvent::finish_query(&query, error));
    }

    fn record(&self, event: InstrumentationEvent<'_>) {
        let instrumentation = self.instrumentation.lock();
        instrumentation
            .unwrap_or_else(PoisonError::into_inner)
            .on_connection_event(event);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.session.close();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint())
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
