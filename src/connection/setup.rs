//! How a session becomes a [`Connection`].

use std::io;
use std::sync::{Arc, Mutex};

use diesel::connection::DynInstrumentation;
use diesel::pg::PgMetadataCache;
use diesel::{ConnectionError, ConnectionResult};

use super::Connection;
use super::statement_cache::StatementCache;
use super::time_zone::is_utc;
use super::transaction::TransactionState;
use crate::connect::EstablishedSession;

impl Connection {
    pub(super) async fn new(handshake: EstablishedSession) -> ConnectionResult<Self> {
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
}

fn bad_connection(error: io::Error) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
}
