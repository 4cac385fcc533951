//! [`Session`]: the migrator's one connection to the server.

use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::sync::CancellationToken;

use super::error::MigrateError;
use crate::connect::{ConnectErrorKind, ConnectSlot, Connector, EstablishedSession};
use crate::policy::Policy;
use crate::session::SessionControl;
use crate::url::DatabaseUrl;

/// A session with the server itself. Every statement goes by the simple protocol, in which a migration may
/// have several statements, and an error has its position in the whole.
pub(super) struct Session {
    client: Client,
    session: SessionControl,
    stop: CancellationToken,
}

/// Why a batch was not completed.
pub(super) enum Interrupted {
    /// The migrator's future was dropped.
    Stopped,
    /// A statement failed, after `completed` others.
    Failed {
        completed: usize,
        error: tokio_postgres::Error,
    },
}

impl Interrupted {
    /// Turns the interruption into the migrator's error, which `failed` makes of a failed statement.
    pub(super) fn explain(
        self,
        failed: impl FnOnce(usize, tokio_postgres::Error) -> MigrateError,
    ) -> MigrateError {
        match self {
            Self::Stopped => MigrateError::Stopped,
            Self::Failed { completed, error } => failed(completed, error),
        }
    }
}

impl Session {
    /// Connects to a URL that is direct by its host's name; `stop` ends the session at the next point where
    /// nothing is left half done.
    pub(super) async fn open(
        url: &DatabaseUrl,
        stop: CancellationToken,
    ) -> Result<Self, MigrateError> {
        let policy = Policy::builder().or_connect_timeout(url.connect_timeout());
        // With this one setting there is nothing to contradict.
        let policy = policy.build().unwrap_or_default();
        // Neon's host names tell a pooler. Any other pooler refuses this startup parameter, or drops it.
        let url = match url.is_neon() {
            true => url.clone(),
            false => url.with_option(MARK, "on"),
        };
        let connector = Connector::new(&url, &policy)?;
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(MigrateError::Stopped),
            connected = connector.connect(
                ConnectSlot::Common,
                None,
                |session: EstablishedSession| async { Ok(session.into_client()) },
                |_| {},
            ) => connected,
        };
        let no_direct_endpoint = || MigrateError::NoDirectEndpoint {
            host: url.hosts()[0].name.to_string(),
        };
        let (client, session) = connected.map_err(|error| match error.kind() {
            ConnectErrorKind::Configuration
                if error.to_string().contains("unsupported startup parameter") =>
            {
                no_direct_endpoint()
            }
            _ => MigrateError::Connect(error),
        })?;
        let session = Self {
            client,
            session,
            stop,
        };
        if !url.is_neon() {
            let sql = format!("SELECT current_setting('{MARK}', true)");
            if session.value(&sql).await?.is_none_or(|mark| mark != "on") {
                return Err(no_direct_endpoint());
            }
        }
        Ok(session)
    }

    /// Has the server check, while it works, if this process is still there, and returns whether it does so:
    /// not before version 14, and not on every system.
    pub(super) async fn try_connection_check(&self) -> bool {
        self.to_the_end(CONNECTION_CHECK).await.is_ok()
    }

    /// Runs statements of a migration. Cancels them when the migrator's future is dropped, and still waits
    /// for their end.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Interrupted> {
        if self.stop.is_cancelled() {
            return Err(Interrupted::Stopped);
        }
        let mut batch = pin!(self.to_the_end(sql));
        tokio::select! {
            biased;
            outcome = &mut batch => outcome,
            () = self.stop.cancelled() => {
                let cancel = self.session.canceller.cancel_if(|| Some(()));
                let outcome = timeout(CLOSE_TIMEOUT, async { tokio::join!(cancel, batch).1 }).await;
                outcome.unwrap_or(Err(Interrupted::Stopped))
            }
        }
    }

    /// Records a migration whose statements have ended. The cancel request for them may be late and end the
    /// record instead, which is then run again: twice at most, since the server signals its process twice.
    pub(super) async fn record(&self, sql: &str) -> Result<(), Interrupted> {
        let mut recorded = self.to_the_end(sql).await;
        for _ in 0..2 {
            if self.stop.is_cancelled() && is_cancelled(&recorded) {
                recorded = self.to_the_end(sql).await;
            }
        }
        recorded
    }

    /// Runs statements that must not be stopped.
    pub(super) async fn to_the_end(&self, sql: &str) -> Result<(), Interrupted> {
        let mut completed = 0;
        let failed = |completed, error| Interrupted::Failed { completed, error };
        let stream = self.client.simple_query_raw(sql).await;
        let mut stream = pin!(stream.map_err(|error| failed(0, error))?);
        while let Some(message) = stream.next().await {
            match message.map_err(|error| failed(completed, error))? {
                SimpleQueryMessage::CommandComplete(_) => completed += 1,
                _ => continue,
            }
        }
        Ok(())
    }

    /// Runs one of the migrator's own statements.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, MigrateError> {
        let rows = async {
            let stream = self.client.simple_query_raw(sql).await?;
            let rows = stream.try_filter_map(|message| async {
                Ok(match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                })
            });
            rows.try_collect().await
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(MigrateError::Stopped),
            rows = rows => rows.map_err(MigrateError::migration_table),
        }
    }

    /// Runs one of the migrator's own statements, and returns its one value.
    pub(super) async fn value(&self, sql: &str) -> Result<Option<String>, MigrateError> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().and_then(|row| row.get(0)).map(Into::into))
    }

    /// Waits until the migrator's future is dropped.
    pub(super) async fn until_stopped(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.session.status.in_transaction()
    }

    /// Ends the session behind `release`, so that its locks are free when this returns.
    pub(super) async fn close(self, release: &str) {
        if !self.session.status.is_busy() && !self.session.status.has_ended() {
            // If this fails, the server does the same as soon as the socket is closed.
            let _ = timeout(CLOSE_TIMEOUT, self.to_the_end(release)).await;
        }
    }
}

fn is_cancelled(outcome: &Result<(), Interrupted>) -> bool {
    matches!(outcome, Err(Interrupted::Failed { error, .. }) if error.code() == Some(&SqlState::QUERY_CANCELED))
}

impl Drop for Session {
    fn drop(&mut self) {
        self.session.close();
    }
}

/// Ends the migration of a killed process, and frees its lock, although the server waits for no client.
pub(super) const CONNECTION_CHECK: &str = "SET client_connection_check_interval = '1s'";

/// A custom setting, which Postgres keeps and does not use.
const MARK: &str = "diesel_neon.migrator";

/// A server that has not answered a cancel request or the last statements by then will not.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
