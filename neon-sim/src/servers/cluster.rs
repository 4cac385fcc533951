//! A throwaway PostgreSQL with a PgBouncer in front of it.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::binaries::Binaries;
use super::files::quick_directory;
use super::guard::Guard;
use super::identity::Identity;
use super::names::{DATABASE, OWNER, SUPERUSER};
use super::server::{Server, ServerSettings};
use super::{pgbouncer, postgres, template};
use crate::error::{Context, Error};

/// PostgreSQL's words to clients that come too early.
const STARTING: &str = "the database system is starting up";
/// PgBouncer's words where another one listens on its port.
const DEAF: &str = "cannot listen on";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks at sessions that are ending.
const END_PAUSE: Duration = Duration::from_millis(2);
const ATTEMPTS: usize = 5;

/// The servers behind the proxy.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    postgres_port: u16,
    /// Nothing if PostgreSQL serves the pooled endpoint, too.
    pgbouncer: Option<PgBouncer>,
    guard: Guard,
    /// Held while a server is restarted: the guard knows one process of each, and would lose one that still runs.
    restarting: Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct PgBouncer {
    port: u16,
    version: (u32, u32),
}

impl Cluster {
    /// Starts both servers and waits until they answer.
    pub(crate) async fn start(
        password: &str,
        binaries: &Binaries,
        postgres: &ServerSettings,
        pgbouncer: &ServerSettings,
    ) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            let cluster = Self::spawn(binaries, password, postgres, pgbouncer)?;
            match cluster.ready().await {
                // Another process may have taken a port between its choice and its use.
                Err(Error::ProgramFailed { detail, .. })
                    if attempt < ATTEMPTS && detail.contains("Address already in use") =>
                {
                    attempt += 1;
                }
                ready => return ready.map(|()| cluster),
            }
        }
    }

    fn spawn(
        binaries: &Binaries,
        password: &str,
        postgres_settings: &ServerSettings,
        pgbouncer_settings: &ServerSettings,
    ) -> Result<Self, Error> {
        let making = || "cannot make a temporary directory".into();
        let probe = tempfile::tempfile().context(making)?;
        let who = Identity::of_owner(&probe.metadata().context(making)?)?;
        let directory = quick_directory("neon-sim-", who)?;
        who.own(directory.path())?;
        must_fit_sockets(directory.path())?;
        let making = template::workshop(directory.path(), who);
        let guard = Guard::new(binaries, who, directory.path(), &making)?;
        // From here on the guard removes the directory.
        let directory = directory.keep();
        let path = directory.as_path();
        let run = path.join("run");
        DirBuilder::new()
            .mode(0o700)
            .create(&run)
            .context(|| format!("cannot make {}", run.display()))?;
        who.own(&run)?;

        template::copy_to(&path.join("data"), &making, binaries, who)?;
        let [postgres_port, pgbouncer_port] = free_ports()?;
        postgres::configure(path, postgres_port, postgres_settings, who)?;
        let place = pgbouncer::Place {
            run: &run,
            port: pgbouncer_port,
            postgres_port,
        };
        let version = |program: &PathBuf| {
            pgbouncer::configure(program, who, &place, password, pgbouncer_settings)
        };
        let version = binaries.pgbouncer.as_ref().map(version).transpose()?;
        let cluster = Self {
            directory,
            postgres_port,
            pgbouncer: version.map(|version| PgBouncer {
                port: pgbouncer_port,
                version,
            }),
            guard,
            restarting: Mutex::default(),
        };
        for server in cluster.servers() {
            cluster.guard.start(server)?;
        }
        Ok(cluster)
    }

    fn servers(&self) -> impl Iterator<Item = Server> {
        let pgbouncer = self.pgbouncer.map(|_| Server::PgBouncer);
        [Server::Postgres].into_iter().chain(pgbouncer)
    }

    async fn ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        for server in self.servers() {
            let program = server.program();
            loop {
                let answers = self.answers(server).await;
                let log = self.directory.join(program).with_extension("log");
                let said = fs::read_to_string(log).unwrap_or_default();
                let fatal = |line: &str| line.contains("FATAL") && !line.contains(STARTING);
                let is_over = said.lines().any(fatal) || started.elapsed() > PATIENCE;
                // PgBouncer before 1.24 makes do with its socket.
                let is_deaf = said.lines().any(|line| line.contains(DEAF));
                if is_deaf || (is_over && !answers) {
                    let from = said.len().saturating_sub(2000);
                    let detail = said.get(from..).unwrap_or(&said).trim().to_owned();
                    return Err(Error::ProgramFailed { program, detail });
                }
                if answers {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Stops a server, and starts it again after `down`; returns when it answers. Restarts take turns.
    pub(crate) async fn restart(&self, server: Server, down: Duration) -> Result<(), Error> {
        let _restarting = self.restarting.lock().await;
        self.guard.stop(server)?;
        while self.answers(server).await {
            sleep(PAUSE).await;
        }
        sleep(down).await;
        self.guard.start(server)?;
        let started = Instant::now();
        while !self.answers(server).await {
            if started.elapsed() > PATIENCE {
                return Err(Error::ProgramFailed {
                    program: server.program(),
                    detail: "it does not come back".into(),
                });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn answers(&self, server: Server) -> bool {
        self.connect(server, server.database()).await.is_ok()
    }

    /// Ends every session that came through a proxy, so that no state of it is left: those in this database, or all. Sessions
    /// that begin meanwhile are those of clients past the stand-in's own proxy, and stay.
    pub(crate) async fn end_sessions(
        &self,
        database: Option<&str>,
    ) -> Result<(), tokio_postgres::Error> {
        let postgres = self.connect(Server::Postgres, DATABASE).await?;
        let there = database.map_or(String::new(), |name| {
            format!(" AND datname = '{}'", name.replace('\'', "''"))
        });
        let through_proxy = format!(
            "FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender') \
             AND client_addr IS NULL AND application_name <> 'neon-sim'{there}"
        );
        let now = rows(&postgres, "SELECT clock_timestamp()").await?;
        let now = now.first().and_then(|row| row.get(0)).unwrap_or("infinity");
        let terminate = format!(
            "SELECT pg_terminate_backend(pid) {through_proxy} AND backend_start <= '{now}'"
        );
        while !rows(&postgres, &terminate).await?.is_empty() {
            sleep(END_PAUSE).await;
        }
        if self.pgbouncer.is_none() {
            return Ok(());
        }
        // PgBouncer must not give a connection that has just ended to a new client. It knows of the end when it has no more
        // connections than PostgreSQL.
        let pgbouncer = self.connect(Server::PgBouncer, "pgbouncer").await?;
        let is_server = |row: &&SimpleQueryRow| match (row.get("database"), database) {
            (Some("pgbouncer"), _) => false,
            (name, Some(_)) => name == database,
            (_, None) => true,
        };
        let living = format!("SELECT 1 {through_proxy}");
        loop {
            let living = rows(&postgres, &living).await?.len();
            let servers = rows(&pgbouncer, "SHOW SERVERS").await?;
            if servers.iter().filter(is_server).count() <= living {
                return Ok(());
            }
            sleep(END_PAUSE).await;
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a server's port; without PgBouncer, PostgreSQL takes its place.
    pub(crate) fn port(&self, server: Server) -> u16 {
        match server {
            Server::Postgres => self.postgres_port,
            Server::PgBouncer => self.pgbouncer.map_or(self.postgres_port, |it| it.port),
        }
    }

    /// Returns PgBouncer's version, as 1 and 24.
    pub(crate) fn pgbouncer_version(&self) -> Option<(u32, u32)> {
        self.pgbouncer.map(|pgbouncer| pgbouncer.version)
    }

    /// Returns the socket that a server listens on.
    pub(crate) fn socket(&self, server: Server) -> PathBuf {
        let port = self.port(server);
        self.directory.join(format!("run/.s.PGSQL.{port}"))
    }

    /// Connects to a server as a superuser, past the proxy.
    pub(crate) async fn connect(
        &self,
        server: Server,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        self.connect_as(SUPERUSER, server, database).await
    }

    /// Connects to PostgreSQL as the databases' owner, past the proxy.
    pub(crate) async fn connect_as_owner(
        &self,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        self.connect_as(OWNER, Server::Postgres, database).await
    }

    async fn connect_as(
        &self,
        user: &str,
        server: Server,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.directory.join("run"))
            .port(self.port(server))
            .user(user)
            .dbname(database)
            .application_name("neon-sim")
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Returns an error if the name of the directory leaves no room for a socket's: 107 bytes on Linux, 103 elsewhere.
fn must_fit_sockets(directory: &Path) -> Result<(), Error> {
    match SocketAddr::from_pathname(directory.join("run/.s.PGSQL.65535")) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Setting(format!(
            "{} is too long a name for a directory of sockets; set TMPDIR to a shorter one",
            directory.display()
        ))),
    }
}

/// Returns the rows of a statement.
async fn rows(
    client: &Client,
    statement: &str,
) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = client.simple_query(statement).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// Chooses two ports that are free, among those that no client's socket is given: one could take a port before the server
/// listens on it, or while the server is down.
fn free_ports() -> Result<[u16; 2], Error> {
    let mut ports = Vec::new();
    // Both ports are held at once, so that they differ.
    let mut held = Vec::new();
    for _ in 0..ATTEMPTS_AT_PORTS {
        let random = RandomState::new().build_hasher().finish();
        let len = u64::from(PORTS.end - PORTS.start);
        let port = u16::try_from(random % len).map_or(PORTS.start, |offset| PORTS.start + offset);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
            ports.push(port);
        }
        if let Ok(ports) = ports.as_slice().try_into() {
            return Ok(ports);
        }
    }
    let none = io::Error::from(io::ErrorKind::AddrInUse);
    Err(none).context(|| "cannot choose a port".into())
}

/// Below those that Linux gives to clients' sockets (`net.ipv4.ip_local_port_range`), as macOS and BSD do above them.
const PORTS: Range<u16> = 10_000..32_768;
const ATTEMPTS_AT_PORTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_for_sockets() {
        must_fit_sockets(Path::new("/tmp/neon-sim-123456")).unwrap();
        let long = Path::new("/tmp").join("l".repeat(90));
        let error = must_fit_sockets(&long).unwrap_err();
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn ports_are_none_that_clients_are_given() {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        for _ in 0..20 {
            let [one, other] = free_ports().unwrap();
            assert_ne!(one, other);
            assert!(one.max(other) < lowest.max(PORTS.end), "{one} {other}");
        }
    }
}
