//! The stand-in as a whole.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot};
use tokio_postgres::SimpleQueryMessage;

use crate::assembly::{Parts, run};
use crate::builder::Builder;
use crate::cluster::{self, DATABASE, OWNER, Server};
use crate::counters::Counters;
use crate::error::{Attempt, Error};
use crate::event::{Event, Suspension};

/// A running stand-in; dropping it stops everything and removes every trace.
///
/// It runs on a thread of its own, so that it can be shared between runtimes and goes on while
/// the caller blocks.
pub struct NeonSim {
    parts: Parts,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NeonSim {
    /// The settings, to be changed before [`Builder::start`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn start(builder: Builder) -> Result<Self, Error> {
        let (started, has_started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("neon-sim".into())
            .spawn(move || run(&builder, started))
            .attempt(|| "cannot start a thread".into())?;
        let (parts, handle, stop) = has_started.await.map_err(|_| Error::Stopped)??;
        Ok(Self {
            parts,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The direct endpoint, in Neon's words, with what it takes to find it on this machine.
    pub fn url(&self) -> String {
        self.neon_url(&self.host())
    }

    /// The pooled endpoint.
    pub fn pooled_url(&self) -> String {
        self.neon_url(&self.pooled_host())
    }

    fn neon_url(&self, host: &str) -> String {
        format!(
            "postgresql://{OWNER}:{}@{host}:{}/{DATABASE}?sslmode=require&channel_binding=require\
             &hostaddr=127.0.0.1&sslrootcert={}",
            self.parts.password,
            self.parts.port,
            percent_encoded(&self.parts.ca_path.display().to_string())
        )
    }

    /// The PostgreSQL behind the proxy: without TLS, without a proxy, never suspended.
    pub fn postgres_url(&self) -> String {
        self.server_url(self.parts.postgres_port)
    }

    /// The PgBouncer behind the proxy: without TLS, without a proxy.
    pub fn pgbouncer_url(&self) -> String {
        self.server_url(self.parts.pgbouncer_port)
    }

    /// The version of the PgBouncer, as 1 and 24.
    ///
    /// From 1.21 on it tracks prepared statements, unless the settings say otherwise.
    pub fn pgbouncer_version(&self) -> (u32, u32) {
        self.parts.pgbouncer_version
    }

    fn server_url(&self, port: u16) -> String {
        let password = &self.parts.password;
        format!("postgresql://{OWNER}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
    }

    /// The host name of the direct endpoint.
    pub fn host(&self) -> String {
        format!("{}.{}", self.parts.endpoint, self.parts.domain)
    }

    /// The host name of the pooled endpoint.
    pub fn pooled_host(&self) -> String {
        format!("{}-pooler.{}", self.parts.endpoint, self.parts.domain)
    }

    /// The proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.parts.port
    }

    /// The password of `neondb_owner`, made up anew for each stand-in.
    pub fn password(&self) -> &str {
        &self.parts.password
    }

    /// The certificate of the authority that has signed the proxy's, in PEM.
    pub fn ca_path(&self) -> &Path {
        &self.parts.ca_path
    }

    /// Creates a database that `neondb_owner` owns.
    ///
    /// # Errors
    ///
    /// When the server refuses, for one because it exists.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let quoted = name.replace('"', "\"\"");
        self.sql(&format!("CREATE DATABASE \"{quoted}\" OWNER {OWNER}"))
            .await?;
        Ok(())
    }

    /// Runs statements in the database `neondb` as a superuser and returns all their rows.
    ///
    /// This goes past the proxy: it neither wakes the compute nor keeps it awake, and nothing
    /// counts it.
    ///
    /// # Errors
    ///
    /// When the server refuses a statement.
    pub async fn sql(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_in(DATABASE, sql).await
    }

    /// Like [`sql`](Self::sql), in another database.
    ///
    /// # Errors
    ///
    /// When the server refuses a statement.
    pub async fn sql_in(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_at(self.parts.postgres_port, database, sql).await
    }

    /// Runs a command at PgBouncer's admin console, such as `SHOW POOLS` or `SET key = value`.
    ///
    /// # Errors
    ///
    /// When PgBouncer refuses it.
    pub async fn pgbouncer_command(
        &self,
        command: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_at(self.parts.pgbouncer_port, "pgbouncer", command)
            .await
    }

    async fn sql_at(
        &self,
        port: u16,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        let directory = self.parts.directory.clone();
        let (database, sql) = (database.to_owned(), sql.to_owned());
        let messages = self
            .inside(async move {
                let client = cluster::connect(&directory, port, &database).await?;
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
    /// If it is suspended already, nothing happens.
    pub async fn suspend(&self, suspension: Suspension) {
        let compute = Arc::clone(&self.parts.compute);
        // Should the thread have ended, everything has.
        let _ = self
            .inside(async move { compute.suspend(suspension).await })
            .await;
    }

    /// Wakes the compute without a connection, as Neon does to check it.
    ///
    /// It takes a cold start and is never one of those that [`fail_wakes`](Self::fail_wakes)
    /// makes fail.
    pub async fn wake(&self) {
        let compute = Arc::clone(&self.parts.compute);
        // Should the thread have ended, nothing wakes any more.
        let _ = self.inside(async move { compute.wake(None).await }).await;
    }

    /// Whether the compute is suspended.
    pub fn is_suspended(&self) -> bool {
        self.parts.compute.is_suspended()
    }

    /// Makes the next `times` tries to wake the compute fail with this message.
    ///
    /// As by Neon's proxy, a message that may pass is told to a client after some more tries, see
    /// [`Builder::wake_retries`]. A final one is told at once, and for [`Builder::wake_error_cache`] to everyone.
    pub fn fail_wakes(&self, times: u64, message: impl Into<String>) {
        self.parts.faults.fail_wakes(times, message.into());
    }

    /// The next `times` connections with the right password are refused with this message.
    pub fn refuse_connections(&self, times: u64, message: impl Into<String>) {
        self.parts.faults.refuse(times, message.into());
    }

    /// The next `times` connections with the right password are never answered again.
    pub fn hang_connections(&self, times: u64) {
        self.parts.faults.hang(times);
    }

    /// Ends PostgreSQL by its fast shutdown and starts it again after so long; returns when it answers.
    ///
    /// Unlike a suspension it ends everything that is connected, the pooler's connections included, and
    /// until it is back the compute cannot be connected to. What has been committed stays. A statement under
    /// way is told `57P01`, and behind the pooler `08P01` as well.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub async fn restart_postgres(&self, down: Duration) -> Result<(), Error> {
        self.restart(Server::Postgres, down).await
    }

    /// Kills PgBouncer and starts it again after so long; returns when it answers.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub async fn restart_pgbouncer(&self, down: Duration) -> Result<(), Error> {
        self.restart(Server::PgBouncer, down).await
    }

    async fn restart(&self, server: Server, down: Duration) -> Result<(), Error> {
        let cluster = Arc::clone(&self.parts.cluster);
        self.inside(async move { cluster.restart(server, down).await })
            .await?
    }

    /// Takes back what the connections to come were still to suffer.
    pub fn clear_faults(&self) {
        self.parts.faults.clear();
    }

    /// From now on every byte takes this long in each direction, on open connections too.
    ///
    /// A round trip takes twice as long. The resolution is a millisecond.
    pub fn set_delay(&self, delay: Duration) {
        self.parts.delay.set(delay);
    }

    /// What has happened so far.
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

    /// What happens to the compute from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.parts.events.subscribe()
    }

    /// Runs a future on the stand-in's own thread.
    async fn inside<T: Send + 'static>(
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
            // A panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
