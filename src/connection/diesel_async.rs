//! The traits of diesel-async for [`Connection`].

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{CacheSize, DynInstrumentation, Instrumentation, InstrumentationEvent};
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use diesel_async::{AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection};
use futures_util::future::BoxFuture;

use super::Connection;
use super::row_stream::RowStream;
use super::statement::Statement;
use super::transaction::{TransactionManager, TransactionState};
use crate::connect::{Connector, Establish, EstablishedSession, PendingSession, Sealed};
use crate::policy::Policy;
use crate::query::{Row, impl_save_changes};
use crate::url::DatabaseUrl;
use crate::util::error_chain::chain;

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

/// Statements through shared references run in one pipeline: all are sent at once, and the server answers them one after
/// another. Behind a pooler that does not track names, each is sent when those in front of it are answered.
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

    /// Makes one attempt to connect, within the URL's `connect_timeout`, by default 15 s. A [`Pool`](crate::Pool) also
    /// retries the failures that pass.
    ///
    /// Instrumentation is told the URL without its password.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::InvalidConnectionUrl`] if the URL is wrong; [`ConnectionError::BadConnection`] if the server
    /// cannot be reached or refuses the login; [`ConnectionError::CouldntSetupConfiguration`] if it refuses the time
    /// zone or the encoding.
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
            // Diesel's error has room for a text alone.
            let refused =
                |error: &(dyn Error + 'static)| ConnectionError::BadConnection(chain(error));
            let connector = Connector::untimed(&url, &policy).map_err(|error| refused(&error))?;
            let connector = Arc::new(connector);
            if connector.pipelines_login() {
                let session = connector.begin_once().await;
                return session
                    .map(Self::of_pending)
                    .map_err(|error| refused(&error));
            }
            let session = connector.connect_once().await;
            Self::new(session.map_err(|error| refused(&error))?).await
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

    /// Stops naming statements if `size` is `Disabled`; otherwise the policy's bound applies.
    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        if matches!(size, CacheSize::Disabled) {
            self.statements.disable();
        } else {
            self.statements.enable();
        }
    }
}

impl Sealed for Connection {
    const BEGIN: Option<fn(PendingSession) -> Self> = Some(Self::of_pending);
}

impl Establish for Connection {
    const SAFE_BEHIND_POOLERS: bool = true;

    async fn establish_with(session: EstablishedSession) -> ConnectionResult<Self> {
        Self::new(session).await
    }

    fn hold(&mut self) {
        self.session.hold();
    }

    fn release(&mut self) {
        self.session.release();
    }

    fn is_abandoned(&mut self) -> bool {
        self.session.is_abandoned()
    }
}

impl_save_changes!(Connection);
