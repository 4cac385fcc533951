//! [`Connection`]: one flight a statement, and safe behind any pooler.

mod ask;
mod begun;
mod bind;
mod copy;
mod error;
mod naming;
mod poolable;
mod row;
mod rows;
mod run;
mod save;
mod simple;
mod statement;
mod statements;
mod time_zone;
mod transaction;
mod types;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{CacheSize, DynInstrumentation, Instrumentation, InstrumentationEvent};
use diesel::pg::{Pg, PgMetadataCache, PgNotification};
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use diesel_async::{AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection};
use futures_util::Stream;
use futures_util::future::BoxFuture;

pub use self::copy::{CopyIn, CopyOut};
pub use self::error::{
    AbandonedTransaction, UnreadRows, internal_query, is_connection_lost, is_transient, sqlstate,
};
pub(crate) use self::naming::Naming;
pub use self::row::{Field, Row};
pub use self::rows::RowStream;
use self::statement::Statement;
use self::statements::Statements;
pub use self::time_zone::is_utc;
pub use self::transaction::{TransactionBuilder, TransactionManager, TransactionState};
use crate::connect::{CancelToken, Connector, Handshake};
use crate::manager::Establish;
use crate::policy::Policy;
use crate::url::{DatabaseUrl, Endpoint};
use crate::wire::Link;

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
    link: Arc<Link>,
    naming: Arc<Naming>,
    transactions: TransactionState,
    types: Mutex<PgMetadataCache>,
    statements: Statements,
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
        self.naming.endpoint()
    }

    /// What the server last reported of one of its settings, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.link.observed().parameter(name)
    }

    /// Stops this connection's statements from elsewhere, until it goes back to its pool.
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(&self.link)
    }

    /// The notifications of the channels that this session listens to, from the first on; it ends when
    /// the connection does. Of those that nobody reads, the last 8192 are kept.
    ///
    /// # Errors
    ///
    /// [`PooledEndpoint`]: through a pooler none arrives.
    pub fn notifications_stream(
        &mut self,
    ) -> Result<impl Stream<Item = QueryResult<PgNotification>> + Send + '_, PooledEndpoint> {
        if self.endpoint() == Endpoint::Pooled {
            return Err(PooledEndpoint(()));
        }
        let link = Some(&*self.link);
        Ok(futures_util::stream::unfold(link, async |link| {
            let link = link?;
            Some(match link.notification().await {
                Ok(notification) => (Ok(notification), Some(link)),
                Err(lost) => (Err(lost.into()), None),
            })
        }))
    }

    async fn new(handshake: Handshake) -> ConnectionResult<Self> {
        let (link, naming) = handshake.into_link().map_err(bad_connection)?;
        let mut connection = Self {
            link: Arc::new(link),
            naming,
            transactions: TransactionState::default(),
            types: Mutex::new(PgMetadataCache::new()),
            statements: Statements::default(),
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
                PooledEndpoint(()),
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
pub struct PooledEndpoint(());

fn bad_connection(error: io::Error) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
}

impl SimpleAsyncConnection for Connection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.batch(query).await
    }
}

impl SimpleAsyncConnection for &Connection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.batch(query).await
    }
}

impl AsyncConnectionCore for Connection {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<RowStream<'conn>>>;
    type Stream<'conn, 'query> = RowStream<'conn>;
    type Row<'conn, 'query> = Row;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let this = &*self;
        let statement = Statement::new(this, &source.as_query());
        Box::pin(this.load_statement(statement))
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let this = &*self;
        let statement = Statement::new(this, &source);
        Box::pin(this.execute_statement(statement))
    }
}

/// Statements through shared references run in one pipeline: all leave at once, and the server answers
/// them one after another.
impl<'a> AsyncConnectionCore for &'a Connection {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'a, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'a, QueryResult<RowStream<'a>>>;
    type Stream<'conn, 'query> = RowStream<'a>;
    type Row<'conn, 'query> = Row;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let this: &'a Connection = self;
        let statement = Statement::new(this, &source.as_query());
        Box::pin(this.load_statement(statement))
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let this: &'a Connection = self;
        let statement = Statement::new(this, &source);
        Box::pin(this.execute_statement(statement))
    }
}

impl AsyncConnection for Connection {
    type TransactionManager = TransactionManager;

    /// Makes one attempt to connect, within the URL's `connect_timeout`, else within 15 s. A
    /// [`Pool`](crate::Pool) also knows which failures are worth another try.
    ///
    /// Instrumentation sees the URL without its password.
    async fn establish(url: &str) -> ConnectionResult<Self> {
        let url = DatabaseUrl::parse(url)
            .map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
        let redacted = url.to_string();
        let mut instrumentation = DynInstrumentation::default_instrumentation();
        instrumentation
            .on_connection_event(InstrumentationEvent::start_establish_connection(&redacted));
        let connected = async {
            let policy = Policy::builder().or_connect_timeout(url.connect_timeout());
            let policy = policy.build();
            let policy =
                policy.map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
            let connector = Connector::untimed(&url, &policy)
                .map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
            let handshake = connector.connect_once().await;
            let handshake =
                handshake.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
            Self::new(handshake).await
        }
        .await;
        instrumentation.on_connection_event(InstrumentationEvent::finish_establish_connection(
            &redacted,
            connected.as_ref().err(),
        ));
        let mut connection = connected?;
        connection.instrumentation = Mutex::new(instrumentation);
        Ok(connection)
    }

    fn transaction_state(&mut self) -> &mut TransactionState {
        &mut self.transactions
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        let instrumentation = self.instrumentation.get_mut();
        &mut **instrumentation.unwrap_or_else(PoisonError::into_inner)
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.instrumentation = Mutex::new(instrumentation.into());
    }

    /// `Disabled` names no statement any more; the bound is the policy's otherwise.
    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        if matches!(size, CacheSize::Disabled) {
            self.statements.disable();
        } else {
            self.statements.enable();
        }
    }
}

impl Establish for Connection {
    const SAFE_BEHIND_POOLERS: bool = true;

    async fn establish_with(handshake: Handshake) -> ConnectionResult<Self> {
        Self::new(handshake).await
    }

    fn look(&mut self) {
        self.link.set_held(true);
        self.link.look();
    }

    fn let_go(&mut self) {
        self.link.let_go();
    }

    fn is_abandoned(&mut self) -> bool {
        self.link.is_abandoned()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint())
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
