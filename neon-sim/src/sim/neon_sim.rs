//! The stand-in as a whole.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot};
use tokio_postgres::SimpleQueryMessage;
use tokio_rustls::TlsAcceptor;

use super::assembly::{Parts, run};
use super::config::Config;
use crate::control::counters::Counters;
use crate::control::event::{Event, Suspension};
use crate::control::faults::Direction;
use crate::control::websocket_fault::WebSocketFault;
use crate::error::{Context, Error};
use crate::http_proxy::proxy::HttpProxy;
use crate::servers::names::{DATABASE, OWNER};
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
    pub(super) async fn start(config: Config) -> Result<Self, Error> {
        let (started, has_started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("neon-sim".into())
            .spawn(move || run(&config, started))
            .context(|| "cannot start a thread".into())?;
        let (parts, handle, stop) = has_started.await.map_err(|_| Error::Stopped)??;
        Ok(Self {
            parts,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns the direct endpoint's URL, as Neon shows it, with the parameters that lead to this machine.
    pub fn url(&self) -> String {
        self.neon_url(&self.host())
    }

    /// Returns the pooled endpoint's URL.
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

    /// Returns the URL of the PostgreSQL behind the proxy: without TLS, never suspended.
    pub fn postgres_url(&self) -> String {
        self.server_url(Server::Postgres)
    }

    /// Returns the URL of the PgBouncer behind the proxy: without TLS.
    pub fn pgbouncer_url(&self) -> String {
        self.server_url(Server::PgBouncer)
    }

    /// Returns PgBouncer's version, as 1 and 24.
    ///
    /// From 1.21 on it tracks prepared statements, unless the settings say otherwise.
    pub fn pgbouncer_version(&self) -> (u32, u32) {
        self.parts.cluster.pgbouncer_version()
    }

    fn server_url(&self, server: Server) -> String {
        let password = &self.parts.password;
        let port = self.parts.cluster.port(server);
        format!("postgresql://{OWNER}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
    }

    /// Returns the host name of the direct endpoint.
    pub fn host(&self) -> String {
        format!("{}.{}", self.parts.endpoint, self.parts.domain)
    }

    /// Returns the host name of the pooled endpoint.
    pub fn pooled_host(&self) -> String {
        format!("{}-pooler.{}", self.parts.endpoint, self.parts.domain)
    }

    /// Returns the proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.parts.port
    }

    /// Returns the proxy's port of HTTPS on 127.0.0.1, which on Neon is 443.
    ///
    /// A request for a WebSocket, on any path, is granted; its binary messages carry PostgreSQL's protocol without TLS of its
    /// own, and the password as it is. The endpoint is that of the Host header. `POST /sql` runs a statement, or a batch; the
    /// endpoint is that of the connection string in its header.
    pub fn https_port(&self) -> u16 {
        self.parts.https_port
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

    /// Returns the password of `neondb_owner`, made up anew for each stand-in.
    pub fn password(&self) -> &str {
        &self.parts.password
    }

    /// Returns the file that holds the certificate authority's certificate, in PEM.
    pub fn ca_path(&self) -> &Path {
        &self.parts.ca_path
    }

    /// Creates a database that `neondb_owner` owns.
    ///
    /// # Errors
    ///
    /// When the server refuses, for example because the database exists.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let quoted = name.replace('"', "\"\"");
        self.sql(&format!("CREATE DATABASE \"{quoted}\" OWNER {OWNER}"))
            .await?;
        Ok(())
    }

    /// Runs statements in the database `neondb` as a superuser and returns all their rows.
    ///
    /// The statements go past the proxy: they neither wake the compute nor keep it awake, and are not
    /// counted.
    ///
    /// # Errors
    ///
    /// When the server refuses a statement.
    pub async fn sql(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_in(DATABASE, sql).await
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
    /// When PgBouncer refuses the command.
    pub async fn pgbouncer_command(
        &self,
        command: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.sql_at(Server::PgBouncer, "pgbouncer", command).await
    }

    async fn sql_at(
        &self,
        server: Server,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        let cluster = Arc::clone(&self.parts.cluster);
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

    /// Makes the next `times` tries to wake the compute fail with this message.
    ///
    /// As with Neon's proxy, a client is refused with a message that may pass only after some more tries, see
    /// [`Builder::wake_retries`](crate::Builder::wake_retries), and with a final one at once; everyone else is refused
    /// with that for [`Builder::wake_error_cache_ttl`](crate::Builder::wake_error_cache_ttl).
    pub fn fail_wakes(&self, times: u64, message: impl Into<String>) {
        self.parts.faults.fail_wakes(times, message.into());
    }

    /// Refuses the next `times` connections with the right password with this message.
    pub fn refuse_connections(&self, times: u64, message: impl Into<String>) {
        self.parts.faults.refuse(times, message.into());
    }

    /// Never answers the next `times` connections again after the right password.
    pub fn hang_connections(&self, times: u64) {
        self.parts.faults.hang(times);
    }

    /// Loses what the clients of the sessions that are open send from now on: the server never hears of it.
    pub fn lose_requests(&self) {
        self.parts.faults.lose(Direction::ToServer);
    }

    /// Loses what the server sends from now on in the sessions that are open: it does what it is told, and the clients
    /// never hear of it.
    pub fn lose_responses(&self) {
        self.parts.faults.lose(Direction::ToClient);
    }

    /// Makes the next `times` WebSockets meet this fault.
    pub fn disturb_websockets(&self, times: u64, fault: WebSocketFault) {
        self.parts.faults.disturb_websockets(times, fault);
    }

    /// Stops PostgreSQL by its fast shutdown and starts it again after `down`; returns when it answers.
    ///
    /// Unlike a suspension this ends every connection, the pooler's included, and nobody can connect until the server
    /// is back. Committed data stays. A statement under way fails with `57P01`, behind the pooler with `08P01` as well.
    ///
    /// # Errors
    ///
    /// When the server does not come back.
    pub async fn restart_postgres(&self, down: Duration) -> Result<(), Error> {
        self.restart(Server::Postgres, down).await
    }

    /// Kills PgBouncer and starts it again after `down`; returns when it answers.
    ///
    /// # Errors
    ///
    /// When the server does not come back.
    pub async fn restart_pgbouncer(&self, down: Duration) -> Result<(), Error> {
        self.restart(Server::PgBouncer, down).await
    }

    async fn restart(&self, server: Server, down: Duration) -> Result<(), Error> {
        let cluster = Arc::clone(&self.parts.cluster);
        self.inside(async move { cluster.restart(server, down).await })
            .await?
    }

    /// Changes how long a suspended compute takes to wake, see [`Builder::cold_start`](crate::Builder::cold_start), for
    /// wake-ups that begin from now on.
    pub fn set_cold_start(&self, cold_start: Duration) {
        self.parts.compute.set_cold_start(cold_start);
    }

    /// Removes the faults that no connection has met yet, and forgets the error of a wake-up.
    pub fn clear_faults(&self) {
        self.parts.faults.clear();
    }

    /// Delays every byte by this time in each direction from now on, on open connections too.
    ///
    /// A round trip takes twice as long. The resolution is a millisecond.
    pub fn set_latency(&self, latency: Duration) {
        self.parts.latency.set(latency);
    }

    /// Holds back what answers a client's flights from its `first` on, until [`release_answers`](Self::release_answers):
    /// the client is heard and served meanwhile.
    ///
    /// Flights are counted from 1 in each connection, as [`EndpointCounters`](crate::EndpointCounters) does.
    pub fn hold_answers(&self, first: u64) {
        self.parts.latency.hold(Some(first));
    }

    /// Lets all answers go that were held back.
    pub fn release_answers(&self) {
        self.parts.latency.hold(None);
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
