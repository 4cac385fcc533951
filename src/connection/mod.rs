//! [`Connection`]: Diesel on a session, with one flight for each statement, safe behind any pooler.
//!
//! In reading order:
//!
//! - `setup`: makes a connection of a session.
//! - `diesel_async`, `poolable`: the traits of diesel-async.
//! - `statement`: a query, rendered.
//! - `statement_cache`: how statements run; `names`: which have names; `repeats`: which come again; `rows`: what is known
//!   of their rows.
//! - `report`: what instrumentation is told of the end of each.
//! - `send`: a statement as one request.
//! - `response_head`: the beginning of its response.
//! - `probe`: whether statements may have names.
//! - `types`, `known_types`: the OIDs of types that only the database knows.
//! - `run`: how all of these run a statement.
//! - `row_stream`: the rows of a response.
//! - `simple`: SQL through the simple protocol.
//! - `transaction`: BEGIN in front of the first statement, COMMIT, ROLLBACK, abandoned transactions.
//! - `copy`, `notifications`: COPY and LISTEN.
//! - `error`: a session's failures as Diesel's errors.
//!
//! A statement whose future is dropped is cancelled by [`session`](crate::session).

mod copy;
mod diesel_async;
mod error;
mod known_types;
mod names;
mod notifications;
mod poolable;
mod probe;
mod repeats;
mod report;
mod response_head;
mod row_stream;
mod rows;
mod run;
mod send;
mod setup;
mod simple;
mod statement;
mod statement_cache;
pub(crate) mod transaction;
mod types;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{DynInstrumentation, InstrumentationEvent, StrQueryHelper};
use diesel::result::Error;

pub use self::copy::{CopyIn, CopyOut};
pub use self::error::{AbandonedTransaction, UnreadRows};
use self::known_types::KnownTypes;
pub use self::notifications::ListenUnsupported;
pub use self::row_stream::RowStream;
use self::statement_cache::StatementCache;
pub use self::transaction::{TransactionBuilder, TransactionManager, TransactionState};
use crate::connect::CancelToken;
use crate::pooler::PoolerSupport;
use crate::session::SessionHandle;
use crate::url::Endpoint;

/// A connection to Postgres for Diesel, direct or through any pooler.
///
/// It does what [`AsyncPgConnection`](::diesel_async::AsyncPgConnection) does, in fewer round trips:
///
/// - A statement takes one round trip. So do `sql_query`, changesets and batch inserts, which Diesel does not cache.
/// - BEGIN rides with the first statement of a transaction, SAVEPOINT with the first statement behind it. A transaction
///   without statements sends nothing.
/// - Connecting takes no round trip beyond the login, if the server's time zone is UTC.
///
/// A statement that comes again has a name, so that the server parses and plans it once, also if Diesel does not cache it.
/// Behind a pooler that does not track prepared statements, no statement has a name, whatever its types.
///
/// Instrumentation is told of BEGIN, SAVEPOINT and their ends as by Diesel's own connections, also if they ride with a
/// statement or are never sent. A BEGIN that fails is reported with the statement that it rode with.
///
/// diesel-async's managers for deadpool, mobc and bb8 take this connection too, without the policies of
/// [`Pool`](crate::Pool): no deadline before the compute is suspended, no retry, no budget for a cold start, no checks of
/// siblings, and no wait for an outstanding response. They check a connection on every checkout, or never.
///
/// If the future of a statement is dropped, its response has 100 ms to arrive. After that, the statement is cancelled and
/// the connection closed; see [`Pool`](crate::Pool). If the future of a transaction is dropped, the connection runs no
/// statement any more; see [`AbandonedTransaction`].
///
/// The last row of a result is returned once the server has confirmed the statement: `get_result` of an
/// `INSERT … RETURNING` is not `Ok` if the commit fails.
pub struct Connection {
    session: Arc<SessionHandle>,
    pooler: Arc<PoolerSupport>,
    transactions: TransactionState,
    types: Mutex<KnownTypes>,
    statements: StatementCache,
    instrumentation: Mutex<DynInstrumentation>,
}

impl Connection {
    /// Returns whether the connection leads to Postgres itself or to a pooler.
    pub fn endpoint(&self) -> Endpoint {
        self.pooler.endpoint()
    }

    /// Returns the value that the server last reported for a setting, such as `server_version`. Servers report some
    /// fifteen settings.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.session.status().parameter(name)
    }

    /// Returns a token that cancels the statements of this connection from elsewhere, until the connection goes back to
    /// its pool.
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
