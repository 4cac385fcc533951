//! [`Connection`]: one flight a statement, and safe behind any pooler.

mod copy;
mod diesel_async;
mod error;
mod poolable;
mod probe;
mod response_head;
mod row_stream;
mod run;
mod save;
mod simple;
mod statement;
mod statement_cache;
mod time_zone;
pub(crate) mod transaction;
mod types;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{DynInstrumentation, InstrumentationEvent};
use diesel::pg::{PgMetadataCache, PgNotification};
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use futures_util::Stream;

pub use self::copy::{CopyIn, CopyOut};
pub use self::error::{
    AbandonedTransaction, UnreadRows, internal_query, is_connection_lost, is_transient, sqlstate,
};
pub use self::row_stream::RowStream;
use self::statement_cache::StatementCache;
pub use self::time_zone::is_utc;
pub use self::transaction::{TransactionBuilder, TransactionManager, TransactionState};
use crate::connect::{CancelToken, EstablishedSession};
use crate::pooler::PoolerSupport;
use crate::session::SessionHandle;
use crate::url::Endpoint;

/// A connection to Postgres for Diesel, direct or through any pooler.
///
/// It does what [`AsyncPgConnection`](diesel_async::AsyncPgConnection) does, in fewer round trips:
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
    /// Begins a transaction with more to say than [`transaction`](AsyncConnection::transaction) does.
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

    /// The notifications of the channels that this session listens to, from the first on; it ends when
    /// the connection does. Of those that nobody reads, the last 8192 are kept.
    ///
    /// # Errors
    ///
    /// [`ListenUnsupported`]: through a pooler none arrives.
    pub fn notifications_stream(
        &mut self,
    ) -> Result<impl Stream<Item = QueryResult<PgNotification>> + Send + '_, ListenUnsupported>
    {
        if self.endpoint() == Endpoint::Pooled {
            return Err(ListenUnsupported(()));
        }
        let session = Some(&*self.session);
        Ok(futures_util::stream::unfold(session, async |session| {
            let session = session?;
            Some(match session.notification().await {
                Ok(notification) => (Ok(notification), Some(session)),
                Err(lost) => (Err(lost.into()), None),
            })
        }))
    }

    async fn new(handshake: EstablishedSession) -> ConnectionResult<Self> {
        let (session, pooler) = handshake.into_handle().map_err(bad_connection)?;
        let mut connection = Self {
            session: Arc::new(session),
            pooler,
            transactions: TransactionState::default(),
            types: Mutex::new(PgMetadataCache::new()),
            statements: StatementCache::default(),
            instrumentation: Mutex::new(DynInstrumentation::none()),
        };
        if let Some(settings) = connection.settings_to_make() {
            let set = connection.simple(settings.to_owned(), true).await;
            set.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        let instrumentation = DynInstrumentation::default_instrumentation();
        connection.instrumentation = Mutex::new(instrumentation);
        Ok(connection)
    }

    /// Diesel counts on the time zone and the encoding; most servers have both by themselves.
    fn settings_to_make(&self) -> Option<&'static str> {
        let is_utf8 = |name: String| {
            let mut names = ["UTF8", "UTF-8"].iter();
            names.any(|known| name.eq_ignore_ascii_case(known))
        };
        let ready = self.parameter("TimeZone").is_some_and(|zone| is_utc(&zone))
            && self.parameter("client_encoding").is_some_and(is_utf8);
        (!ready).then_some("SET TIME ZONE 'UTC'; SET client_encoding TO 'UTF8'")
    }

    /// Where it would succeed, and no notification ever arrive.
    fn refuse_listen(&self, sql: &str) -> QueryResult<()> {
        let listens = sql.trim_start().get(..6).is_some_and(|word| {
            word.eq_ignore_ascii_case("LISTEN")
                && !sql.trim_start()[6..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
        });
        match (listens, self.endpoint()) {
            (true, Endpoint::Pooled) => Err(diesel::result::Error::QueryBuilderError(Box::new(
                ListenUnsupported(()),
            ))),
            _ => Ok(()),
        }
    }

    fn record(&self, event: InstrumentationEvent<'_>) {
        let instrumentation = self.instrumentation.lock();
        instrumentation
            .unwrap_or_else(PoisonError::into_inner)
            .on_connection_event(event);
    }

    async fn batch(&self, sql: &str) -> QueryResult<()> {
        self.start(sql);
        let done = match self.refuse_listen(sql) {
            Ok(()) => self.simple(sql.to_owned(), false).await.map(drop),
            Err(error) => Err(error),
        };
        self.finish(sql, done.as_ref().err());
        done
    }
}

/// Notifications need a session of their own, which a pooler does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "through a pooler no notification arrives: LISTEN on the direct endpoint (DatabaseUrl::direct)"
)]
pub struct ListenUnsupported(());

fn bad_connection(error: io::Error) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
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
