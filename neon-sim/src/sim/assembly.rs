//! Assembles the parts of a stand-in, on a thread of its own.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::sync::{broadcast, oneshot};

use super::config::Config;
use crate::control::compute::Compute;
use crate::control::counters::Tally;
use crate::control::event::Event;
use crate::control::faults::Faults;
use crate::control::roles::Roles;
use crate::error::{Context, Error};
use crate::https::listener::serve_https;
use crate::protocol::scram;
use crate::proxy::link::Latency;
use crate::proxy::listener::serve;
use crate::proxy::shared::{Cancellable, Shared};
use crate::proxy::tls::Tls;
use crate::servers::binaries::Binaries;
use crate::servers::cluster::Cluster;
use crate::servers::names::OWNER;
use crate::servers::server::Server;

const EVENTS: usize = 256;

/// The parts of a running stand-in.
pub(super) struct Parts {
    pub(super) endpoint: String,
    pub(super) domain: String,
    pub(super) password: String,
    pub(super) ca_path: PathBuf,
    pub(super) port: u16,
    pub(super) https_port: u16,
    /// For other servers on this machine.
    pub(super) local_tls: Arc<ServerConfig>,
    pub(super) compute: Arc<Compute>,
    pub(super) faults: Arc<Faults>,
    pub(super) latency: Latency,
    pub(super) direct: Arc<Tally>,
    pub(super) pooled: Arc<Tally>,
    pub(super) events: broadcast::Sender<Event>,
    /// Dropped last: the servers stop then.
    pub(super) cluster: Arc<Cluster>,
}

/// A stand-in that runs until the sender is dropped.
pub(super) type Started = Result<(Parts, Handle, oneshot::Sender<()>), Error>;

/// Runs a stand-in on this thread.
pub(super) fn run(config: &Config, started: oneshot::Sender<Started>) {
    let runtime = match runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start a runtime".into())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            // An error says that the caller has given up.
            let _ = started.send(Err(error));
            return;
        }
    };
    let cluster = runtime.block_on(async {
        match assemble(config).await {
            Ok((parts, cluster)) => {
                let (stop, stopped) = oneshot::channel();
                if started.send(Ok((parts, Handle::current(), stop))).is_ok() {
                    // The sender is never used, only dropped.
                    let _ = stopped.await;
                }
                Some(cluster)
            }
            Err(error) => {
                // An error says that the caller has given up.
                let _ = started.send(Err(error));
                None
            }
        }
    });
    // A connection left open could make PostgreSQL wait for what it has to say.
    drop(runtime);
    drop(cluster);
}

async fn assemble(config: &Config) -> Result<(Parts, Arc<Cluster>), Error> {
    let password = password();
    let (listener, port) = listen(config.port).await?;
    let (https_listener, https_port) = listen(config.https_port).await?;
    let cluster = Arc::new(
        Cluster::start(
            &password,
            &Binaries::find(config.pgbouncer.as_deref())?,
            &config.postgres_settings,
            &config.pgbouncer_settings,
        )
        .await?,
    );
    let ca_path = cluster.directory().join("ca.pem");
    let tls = Tls::new(&config.domain, config.certificate, &ca_path)?;
    let client = cluster.connect(Server::Postgres, "postgres").await?;
    client
        .batch_execute(&format!("ALTER ROLE {OWNER} PASSWORD '{password}'"))
        .await?;

    let (events, _) = broadcast::channel(EVENTS);
    let compute = Compute::new(
        config.suspend_after,
        config.cold_start,
        Arc::clone(&cluster),
        events.clone(),
    );
    let timing = config.timing;
    let parts = Parts {
        endpoint: config.endpoint.clone(),
        domain: config.domain.clone(),
        password,
        ca_path,
        port,
        https_port,
        local_tls: Arc::clone(&tls.local),
        compute: Arc::clone(&compute),
        faults: Arc::new(Faults::new(timing.wake_error_cache)),
        latency: Latency::default(),
        direct: Arc::default(),
        pooled: Arc::default(),
        events,
        cluster: Arc::clone(&cluster),
    };
    let shared = Shared {
        domain: parts.domain.clone(),
        endpoint: parts.endpoint.clone(),
        tls,
        channel_binding: config.channel_binding,
        timing,
        compute: Arc::clone(&compute),
        faults: Arc::clone(&parts.faults),
        latency: parts.latency.clone(),
        direct: Arc::clone(&parts.direct),
        pooled: Arc::clone(&parts.pooled),
        postgres: cluster.socket(Server::Postgres),
        pgbouncer: cluster.socket(Server::PgBouncer),
        roles: Roles::new(Arc::clone(&cluster), client, timing.access_control_cache),
        cancellable: Cancellable::default(),
    };
    let shared = Arc::new(shared);
    tokio::spawn(serve(Arc::clone(&shared), listener));
    let tokens = config.tokens.clone();
    tokio::spawn(serve_https(shared, tokens, https_listener));
    tokio::spawn(async move { compute.watch().await });
    Ok((parts, cluster))
}

/// Listens on a port of 127.0.0.1, and returns which it is.
pub(super) async fn listen(port: u16) -> Result<(TcpListener, u16), Error> {
    let listening = || format!("cannot listen on port {port}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.context(listening)?;
    let port = listener.local_addr().context(listening)?.port();
    Ok((listener, port))
}

/// Makes up a password of the form that Neon's have.
fn password() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ0123456789";
    let letters = scram::random::<16>()
        .into_iter()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    format!("npg_{}", letters.collect::<String>())
}
