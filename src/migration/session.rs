//! The migrator's one connection; the only place that knows what kind it is.

use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::sync::CancellationToken;

use super::error::MigrateError;
use crate::connect::{ConnectErrorKind, ConnectSlot, Connector, EstablishedSession};
use crate::policy::Policy;
use crate::session::SessionControl;
use crate::url::DatabaseUrl;

/// A session with the server itself. Everything goes by the simple protocol: a migration has several
/// statements, and its errors come with the position in the whole.
pub(super) struct Session {
    client: Client,
    session: SessionControl,
    stop: CancellationToken,
}

/// Why a batch has not come to its end.
pub(super) enum Interrupted {
    /// Nobody waits for it any more.
    Stopped,
    /// It failed behind so many statements.
    Failed {
        completed: usize,
        error: tokio_postgres::Error,
    },
}

impl Interrupted {
    /// What it means for a migrator; `failed` knows what was being done.
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
    /// Connects to a URL that is direct as far as its host tells; `stop` ends the session at the next
    /// point where nothing is left half done.
    pub(super) async fn open(
        url: &DatabaseUrl,
        stop: CancellationToken,
    ) -> Result<Self, MigrateError> {
        let policy = Policy::builder().or_connect_timeout(url.connect_timeout());
        // Nothing is set that could contradict.
        let policy = policy.build().unwrap_or_default();
        // Neon's host names tell a pooler; elsewhere a pooler betrays itself by refusing this, or by
        // leaving it out.
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
                |handshake: EstablishedSession| async { Ok(handshake.into_client()) },
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

    /// Whether the server looks, while it works, if this process is still there; not before version
    /// 14, and not on every system.
    pub(super) async fn can_be_missed(&self) -> bool {
        self.through(MISS_ME).await.is_ok()
    }

    /// Runs statements of a migration. Where nobody waits any more, they are cancelled, and it is
    /// still waited for how they have ended.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Interrupted> {
        if self.stop.is_cancelled() {
            return Err(Interrupted::Stopped);
        }
        let mut batch = pin!(self.through(sql));
        tokio::select! {
            biased;
            outcome = &mut batch => outcome,
            () = self.stop.cancelled() => {
                let cancel = self.session.canceller.cancel();
                let outcome = timeout(PATIENCE, async { tokio::join!(cancel, batch).1 }).await;
                let outcome = outcome.unwrap_or(Err(Interrupted::Stopped));
                if !is_cancelled(&outcome) {
                    // The request may still be under way, and would stop what notes the migration down. It does
                    // nothing to a session that rests.
                    sleep(LATE).await;
                }
                outcome
            }
        }
    }

    /// Runs statements that belong to what has been done already: nothing stops them.
    pub(super) async fn through(&self, sql: &str) -> Result<(), Interrupted> {
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
            rows = rows => rows.map_err(MigrateError::books),
        }
    }

    /// The one value that a statement returns.
    pub(super) async fn value(&self, sql: &str) -> Result<Option<String>, MigrateError> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().and_then(|row| row.get(0)).map(Into::into))
    }

    /// Resolves when nobody waits for the session any more.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.session.status.in_transaction()
    }

    /// Ends the session, so that everything it held is free when this returns.
    pub(super) async fn close(self, farewell: &str) {
        if !self.session.status.is_busy() && !self.session.status.has_ended() {
            // Should it fail, the server does the same as soon as the socket is closed.
            let _ = timeout(PATIENCE, self.through(farewell)).await;
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

/// So that a killed process's migration ends, and its lock is free, without anybody waiting for it.
pub(super) const MISS_ME: &str = "SET client_connection_check_interval = '1s'";

/// A setting that means nothing to Postgres, and that it takes note of.
const MARK: &str = "diesel_neon.migrator";

/// A server that has not answered a cancel request or a farewell by then will not.
const PATIENCE: Duration = Duration::from_secs(10);

/// How late a cancel request may come: Neon's proxy closes its socket first, and passes it on afterwards.
const LATE: Duration = Duration::from_secs(1);
