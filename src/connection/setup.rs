//! Makes a [`Connection`] of a session.

use std::io;
use std::sync::{Arc, Mutex};

use diesel::connection::DynInstrumentation;
use diesel::{ConnectionError, ConnectionResult};

use super::Connection;
use super::statement_cache::StatementCache;
use super::transaction::TransactionState;
use crate::connect::{EstablishedSession, PendingSession};
use crate::pooler::PoolerSupport;
use crate::session::SessionHandle;

impl Connection {
    /// Takes the session over, and sets what Diesel counts on.
    pub(super) async fn new(session: EstablishedSession) -> ConnectionResult<Self> {
        let missing = missing_settings(&session);
        let (session, pooler) = session.into_handle().map_err(bad_connection)?;
        let connection = Self::of_handle(session, pooler);
        if let Some(settings) = missing {
            let set = connection.simple(settings.to_owned(), true).await;
            set.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(connection.instrumented())
    }

    /// Takes a session over whose login is under way. What Diesel counts on is set in front of the first statement.
    pub(super) fn of_pending(session: PendingSession) -> Self {
        let (session, pooler) = session.into_handle();
        session.require(SETTINGS);
        Self::of_handle(session, pooler).instrumented()
    }

    fn of_handle(session: Arc<SessionHandle>, pooler: Arc<PoolerSupport>) -> Self {
        Self {
            session,
            pooler,
            transactions: TransactionState::default(),
            types: Mutex::default(),
            statements: StatementCache::default(),
            instrumentation: Mutex::new(DynInstrumentation::none()),
        }
    }

    fn instrumented(mut self) -> Self {
        let instrumentation = DynInstrumentation::default_instrumentation();
        self.instrumentation = Mutex::new(instrumentation);
        self
    }
}

/// Returns the SQL that sets the time zone and the encoding that Diesel counts on, unless the server has them.
fn missing_settings(session: &EstablishedSession) -> Option<&'static str> {
    let is_utf8 = |name: String| {
        let mut names = ["UTF8", "UTF-8"].iter();
        names.any(|known| name.eq_ignore_ascii_case(known))
    };
    let is_set = session.is_in_utc() && session.parameter("client_encoding").is_some_and(is_utf8);
    (!is_set).then_some(SETTINGS)
}

const SETTINGS: &str = "SET TIME ZONE 'UTC'; SET client_encoding TO 'UTF8'";

fn bad_connection(error: io::Error) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
}
