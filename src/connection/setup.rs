//! Makes a [`Connection`] of a session.

use std::io;
use std::sync::Mutex;

use diesel::connection::DynInstrumentation;
use diesel::pg::PgMetadataCache;
use diesel::{ConnectionError, ConnectionResult};

use super::Connection;
use super::statement_cache::StatementCache;
use super::transaction::TransactionState;
use crate::connect::EstablishedSession;

impl Connection {
    /// Takes the session over, and sets what Diesel counts on.
    pub(super) async fn new(session: EstablishedSession) -> ConnectionResult<Self> {
        let missing = missing_settings(&session);
        let (session, pooler) = session.into_handle().map_err(bad_connection)?;
        let mut connection = Self {
            session,
            pooler,
            transactions: TransactionState::default(),
            types: Mutex::new(PgMetadataCache::new()),
            statements: StatementCache::default(),
            instrumentation: Mutex::new(DynInstrumentation::none()),
        };
        if let Some(settings) = missing {
            let set = connection.simple(settings.to_owned(), true).await;
            set.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        let instrumentation = DynInstrumentation::default_instrumentation();
        connection.instrumentation = Mutex::new(instrumentation);
        Ok(connection)
    }
}

/// Returns the SQL that sets the time zone and the encoding that Diesel counts on, unless the server has them.
fn missing_settings(session: &EstablishedSession) -> Option<&'static str> {
    let is_utf8 = |name: String| {
        let mut names = ["UTF8", "UTF-8"].iter();
        names.any(|known| name.eq_ignore_ascii_case(known))
    };
    let is_set = session.is_in_utc() && session.parameter("client_encoding").is_some_and(is_utf8);
    (!is_set).then_some("SET TIME ZONE 'UTC'; SET client_encoding TO 'UTF8'")
}

fn bad_connection(error: io::Error) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
}
