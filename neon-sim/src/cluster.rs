//! A throwaway PostgreSQL with a PgBouncer in front of it.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::binaries::{Binaries, Identity};
use crate::error::{Attempt, Error};
use crate::guard::Guard;
use crate::{pgbouncer, template};

pub(crate) const SUPERUSER: &str = "cloud_admin";
pub(crate) const OWNER: &str = "neondb_owner";
pub(crate) const DATABASE: &str = "neondb";

/// What a server says to those who come too early.
const STARTING: &str = "the database system is starting up";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
const ATTEMPTS: usize = 5;

/// Settings a user may add to those that are always there.
pub(crate) type Settings = Vec<(String, String)>;

/// One of the servers behind the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Postgres,
    PgBouncer,
}

impl Server {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
        }
    }

    /// One that is always there.
    fn database(self) -> &'static str {
        match self {
            Self::Postgres => DATABASE,
            Self::PgBouncer => "pgbouncer",
        }
    }
}

/// The servers behind the proxy.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    pub(crate) postgres_port: u16,
    pub(crate) pgbouncer_port: u16,
    pub(crate) pgbouncer_version: (u32, u32),
    guard: Guard,
}

impl Cluster {
    /// Starts both servers and waits until they answer.
    pub(crate) async fn start(
        password: &str,
        binaries: &Binaries,
        postgres: &Settings,
        pgbouncer: &Settings,
    ) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            let cluster = Self::spawn(binaries, password, postgres, pgbouncer)?;
            match cluster.ready().await {
                // Another process may have taken a port between its choice and its use.
                Err(Error::Program { detail, .. })
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
        postgres: &Settings,
        pgbouncer: &Settings,
    ) -> Result<Self, Error> {
        let making = || "cannot make a temporary directory".into();
        let probe = tempfile::tempfile().attempt(making)?;
        let who = Identity::of_owner(&probe.metadata().attempt(making)?)?;
        let directory = private_directory("neon-sim-", who)?;
        who.own(directory.path())?;
        let guard = Guard::new(binaries, who, directory.path())?;
        // From here on the guard removes it.
        let directory = directory.keep();
        let path = directory.as_path();
        let run = path.join("run");
        DirBuilder::new()
            .mode(0o700)
            .create(&run)
            .attempt(|| format!("cannot make {}", run.display()))?;
        who.own(&run)?;

        template::copy_to(&path.join("data"), binaries, who)?;
        let [postgres_port, pgbouncer_port] = free_ports()?;
        configure(path, postgres_port, postgres, who)?;
        let pgbouncer_version = pgbouncer::configure(
            binaries,
            who,
            &pgbouncer::Place {
                run: &run,
                port: pgbouncer_port,
                postgres_port,
            },
            password,
            pgbouncer,
        )?;
        guard.start(Server::Postgres)?;
        guard.start(Server::PgBouncer)?;
        Ok(Self {
            directory,
            postgres_port,
            pgbouncer_port,
            pgbouncer_version,
            guard,
        })
    }

    async fn ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        for server in [Server::Postgres, Server::PgBouncer] {
            let program = server.program();
            while !self.answers(server).await {
                let log = self.directory.join(program).with_extension("log");
                let said = fs::read_to_string(log).unwrap_or_default();
                let fatal = |line: &str| line.contains("FATAL") && !line.contains(STARTING);
                if said.lines().any(fatal) || started.elapsed() > PATIENCE {
                    let from = said.len().saturating_sub(2000);
                    let detail = said.get(from..).unwrap_or(&said).trim().to_owned();
                    return Err(Error::Program { program, detail });
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Takes a server away for so long; returns when it is back.
    pub(crate) async fn restart(&self, server: Server, down: Duration) -> Result<(), Error> {
        self.guard.stop(server)?;
        while self.answers(server).await {
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(down).await;
        self.guard.start(server)?;
        let started = Instant::now();
        while !self.answers(server).await {
            if started.elapsed() > PATIENCE {
                return Err(Error::Program {
                    program: server.program(),
                    detail: "it does not come back".into(),
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn answers(&self, server: Server) -> bool {
        let port = match server {
            Server::Postgres => self.postgres_port,
            Server::PgBouncer => self.pgbouncer_port,
        };
        self.connect(port, server.database()).await.is_ok()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The socket that a server listens on.
    pub(crate) fn socket(&self, port: u16) -> PathBuf {
        self.directory.join(format!("run/.s.PGSQL.{port}"))
    }

    /// A superuser's connection, past the proxy.
    pub(crate) async fn connect(
        &self,
        port: u16,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        connect(&self.directory, port, database).await
    }
}

/// A superuser's connection to a server in `directory`.
pub(crate) async fn connect(
    directory: &Path,
    port: u16,
    database: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(directory.join("run"))
        .port(port)
        .user(SUPERUSER)
        .dbname(database)
        .application_name("neon-sim")
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Where the servers' files go: a place that an unprivileged user can reach.
pub(crate) fn temporary_directory(who: Identity) -> PathBuf {
    if who.switched() {
        PathBuf::from("/tmp")
    } else {
        std::env::temp_dir()
    }
}

/// A directory that only this user can enter, removed unless it is kept.
pub(crate) fn private_directory(prefix: &str, who: Identity) -> Result<TempDir, Error> {
    let parent = temporary_directory(who);
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .attempt(|| format!("cannot make a directory in {}", parent.display()))
}

fn free_ports() -> Result<[u16; 2], Error> {
    let choosing = || "cannot choose a port".into();
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).attempt(choosing);
    // Both are held at once, so that they differ.
    let (one, other) = (listen()?, listen()?);
    let one = one.local_addr().attempt(choosing)?.port();
    let other = other.local_addr().attempt(choosing)?.port();
    Ok([one, other])
}

fn configure(directory: &Path, port: u16, settings: &Settings, who: Identity) -> Result<(), Error> {
    let data = directory.join("data");
    let run = directory.join("run");
    let mut text = format!(
        "port = {port}\n\
         listen_addresses = '127.0.0.1'\n\
         unix_socket_directories = '{}'\n\
         fsync = off\n\
         full_page_writes = off\n\
         shared_buffers = 32MB\n\
         password_encryption = 'scram-sha-256'\n\
         authentication_timeout = 10s\n\
         idle_in_transaction_session_timeout = 300000\n\
         timezone = 'GMT'\n\
         log_timezone = 'GMT'\n\
         logging_collector = off\n",
        quoted(&run.display().to_string())
    );
    for (name, value) in settings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} = '{}'", quoted(value));
    }
    write(&data.join("postgresql.auto.conf"), &text, who)?;
    write(
        &data.join("pg_hba.conf"),
        "local all all trust\n\
         local replication all trust\n\
         host all all 127.0.0.1/32 scram-sha-256\n",
        who,
    )
}

pub(crate) fn write(path: &Path, text: &str, who: Identity) -> Result<(), Error> {
    fs::write(path, text).attempt(|| format!("cannot write {}", path.display()))?;
    who.own(path)
}

fn quoted(value: &str) -> String {
    value.replace('\'', "''")
}
