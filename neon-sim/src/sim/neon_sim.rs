//! The stand-in as a whole.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot};
use tokio_postgres::SimpleQueryMessage;
use tokio_rustls::TlsAcceptor;

use super::assembly::{Parts, run};
use super::config::Config;
use super::ground::Place;
use crate::control::counters::Counters;
use crate::control::event::{Event, Suspension};
use crate::error::{Context, Error};
use crate::http_proxy::proxy::HttpProxy;
use crate::servers::names::OWNER;
use crate::servers::server::Server;

/// A running stand-in; dropping it stops everything and removes every trace.
///
/// It runs on a thread of its own, so that it can be shared between runtimes and goes on while
/// the caller blocks.
pub struct NeonSim {
    pub(super) parts: Parts,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NeonSim {
    /// Starts a stand-in in a place on servers that run, or on its own.
    pub(crate) async fn start(config: Config, place: Option<Place>) -> Result<Self, Error> {
        let (started, has_started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("neon-sim".into())
            .spawn(move || run(&config, place, started))
            .context(|| "cannot start a thread".into())?;
        let (parts, handle, stop) = has_started.await.map_err(|_| Error::Stopped)??;
        Ok(Self {
            parts,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns whether PgBouncer serves the pooled endpoint; PostgreSQL itself does where
    /// [`Builder::pooler`](crate::Builder::pooler) allows it.
    pub fn has_pgbouncer(&self) -> bool {
        self.parts.ground.cluster.pgbouncer_version().is_some()
    }

    /// Returns PgBouncer's version, as 1 and 24, or zeros if there is none.
    ///
    /// From 1.21 on it tracks prepared statements, unless the settings say otherwise.
    pub fn pgbouncer_version(&self) -> (u32, u32) {
        let cluster = &self.parts.ground.cluster;
        cluster.pgbouncer_version().unwrap_or_default()
    }

    /// Starts a proxy of HTTP that clients speak to under TLS, as `localhost`, by a certificate of [`ca_path`](Self::ca_path)'s
    /// authority; [`HttpProxy::start`] starts one in plain text.
    ///
    /// # Errors
    ///
    /// When no port or thread can be had.
    pub async fn start_https_proxy(&self) -> Result<HttpProxy, Error> {
        let tls = TlsAcceptor::from(Arc::clone(&self.parts.local_tls));
        HttpProxy::start_with(Some(tls)).await
    }

    /// Creates a database that `neondb_owner` owns.
    ///
    /// # Errors
    ///
    /// When the server refuses, for example because the database exists, or is shared with other test databases.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        self.must_own("create_database")?;
        let quoted = name.replace('"', "\"\"");
        self.sql(&format!("CREATE DATABASE \"{quoted}\" OWNER {OWNER}"))
            .await?;
        Ok(())
    }

    /// Runs statements in the URLs' database as a superuser and returns all their rows.
    ///
    /// The statements go past the proxy: they neither wake the compute nor keep it awake, and are not
    /// counted.
    ///
    /// # Errors
    ///
    /// When the server refuses a statement.
    pub async fn sql(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_in(&self.parts.database, sql).await
    }

    /// Runs statements like [`sql`](Self::sql) in another database.
    ///
    /// # Errors
    ///
    /// When the server refuses a statement.
    pub async fn sql_in(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_at(Server::Postgres, database, sql).await
    }

    /// Runs a command at PgBouncer's admin console, such as `SHOW POOLS` or `SET key = value`.
    ///
    /// # Errors
    ///
    /// When PgBouncer refuses the command, is not there, or is shared with other test databases.
    pub async fn pgbouncer_command(
        &self,
        command: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.must_own("pgbouncer_command")?;
        self.must_have_pgbouncer()?;
        self.sql_at(Server::PgBouncer, "pgbouncer", command).await
    }

    async fn sql_at(
        &self,
        server: Server,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        let cluster = Arc::clone(&self.parts.ground.cluster);
        let (database, sql) = (database.to_owned(), sql.to_owned());
        let messages = self
            .inside(async move {
                let client = cluster.connect(server, &database).await?;
                client.simple_query(&sql).await
            })
            .await??;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|column| row.get(column).map(Into::into));
                Some(values.collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Suspends the compute now, whatever it is doing, and returns when its sessions have ended.
    ///
    /// Does nothing if the compute is suspended already.
    pub async fn suspend(&self, suspension: Suspension) {
        let compute = Arc::clone(&self.parts.compute);
        // An error says that the thread has ended, and with it everything.
        let _ = self
            .inside(async move { compute.suspend(suspension).await })
            .await;
    }

    /// Wakes the compute without a connection, as Neon does to check it.
    ///
    /// It takes a cold start. [`fail_wakes`](Self::fail_wakes) does not make it fail.
    pub async fn wake(&self) {
        let compute = Arc::clone(&self.parts.compute);
        // An error says that the thread has ended, and with it everything.
        let _ = self.inside(async move { compute.wake(None).await }).await;
    }

    /// Returns whether the compute is suspended.
    pub fn is_suspended(&self) -> bool {
        self.parts.compute.is_suspended()
    }

    /// Stops PostgreSQL by its fast shutdown and starts it again after `down`; returns when it answers.
    ///
    /// Unlike a suspension this ends every connection, the pooler's included, and nobody can connect until the server
    /// is back. Committed data stays. A statement under way fails with `57P01`, behind the pooler with `08P01` as well.
    ///
    /// # Errors
    ///
    /// When the server does not come back, or is shared with other test databases.
    pub async fn restart_postgres(&self, down: Duration) -> Result<(), Error> {
        self.must_own("restart_postgres")?;
        self.restart(Server::Postgres, down).await
    }

    /// Kills PgBouncer and starts it again after `down`; returns when it answers.
    ///
    /// # Errors
    ///
    /// When the server does not come back, is not there, or is shared with other test databases.
    pub async fn restart_pgbouncer(&self, down: Duration) -> Result<(), Error> {
        self.must_own("restart_pgbouncer")?;
        self.must_have_pgbouncer()?;
        self.restart(Server::PgBouncer, down).await
    }

    async fn restart(&self, server: Server, down: Duration) -> Result<(), Error> {
        let cluster = Arc::clone(&self.parts.ground.cluster);
        self.inside(async move { cluster.restart(server, down).await })
            .await?
    }

    /// Returns the counters since the start.
    pub fn counters(&self) -> Counters {
        let (wakes, suspensions, time_suspended) = self.parts.compute.history();
        Counters {
            direct: self.parts.direct.read(),
            pooled: self.parts.pooled.read(),
            wakes,
            suspensions,
            time_suspended,
        }
    }

    /// Returns a stream of what happens to the compute from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.parts.events.subscribe()
    }

    /// Returns an error if the servers are not this stand-in's alone.
    pub(super) fn must_own(&self, method: &'static str) -> Result<(), Error> {
        match self.parts.ground.is_shared {
            true => Err(Error::SharedServers(method)),
            false => Ok(()),
        }
    }

    fn must_have_pgbouncer(&self) -> Result<(), Error> {
        match self.has_pgbouncer() {
            true => Ok(()),
            false => Err(Error::NoPgBouncer),
        }
    }

    /// Runs a future on the stand-in's own thread.
    pub(super) async fn inside<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.handle.spawn(future).await.map_err(|_| Error::Stopped)
    }
}

impl fmt::Debug for NeonSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NeonSim")
            .field("host", &self.host())
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

impl Drop for NeonSim {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has printed itself.
            let _ = thread.join();
        }
    }
}
