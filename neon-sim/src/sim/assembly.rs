//! Assembles the parts of a stand-in, on a thread of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::sync::{broadcast, oneshot};

use super::config::Config;
use super::ground::{Ground, Place};
use crate::control::compute::Compute;
use crate::control::counters::Tally;
use crate::control::event::Event;
use crate::control::faults::Faults;
use crate::control::roles::Roles;
use crate::error::{Context, Error};
use crate::https::listener::serve_https;
use crate::proxy::link::Latency;
use crate::proxy::listener::serve;
use crate::proxy::shared::{Cancellable, Doorkeeper, Shared};
use crate::proxy::tls::{LOCAL, Tls};
use crate::servers::names::DATABASE;
use crate::servers::server::Server;

const EVENTS: usize = 256;

/// The parts of a running stand-in.
pub(super) struct Parts {
    pub(super) endpoint: String,
    pub(super) domain: String,
    pub(super) database: String,
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
    /// Dropped last: the servers stop then, unless others use them.
    pub(super) ground: Arc<Ground>,
}

/// A stand-in that runs until the sender is dropped.
pub(super) type Started = Result<(Parts, Handle, oneshot::Sender<()>), Error>;

/// Runs a stand-in on this thread, in a place on servers that run, or on its own.
pub(super) fn run(config: &Config, place: Option<Place>, started: oneshot::Sender<Started>) {
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
    let ground = runtime.block_on(async {
        match assemble(config, place).await {
            Ok(parts) => {
                let ground = Arc::clone(&parts.ground);
                let ca_path = parts.ca_path.clone();
                let (stop, stopped) = oneshot::channel();
                if started.send(Ok((parts, Handle::current(), stop))).is_ok() {
                    // The sender is never used, only dropped.
                    let _ = stopped.await;
                }
                // It goes with its folder, unless others use that.
                let _ = fs::remove_file(ca_path);
                Some(ground)
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
    drop(ground);
}

async fn assemble(config: &Config, place: Option<Place>) -> Result<Parts, Error> {
    let (listener, port) = listen(config.port).await?;
    let (https_listener, https_port) = listen(config.https_port).await?;
    let (ground, database) = match place {
        Some(place) => (place.ground, Some(place.database)),
        None => (Arc::new(Ground::start(config, false).await?), None),
    };
    let cluster = &ground.cluster;
    // What clients without SNI are given is an address, see `TestDatabase::portable_url`.
    let (ca, others) = match &database {
        Some(name) => (format!("{name}.pem"), &LOCAL[..]),
        None => ("ca.pem".into(), &[][..]),
    };
    let ca_path = cluster.directory().join(ca);
    let tls = Tls::new(&config.domain, others, config.certificate, &ca_path)?;
    let client = cluster.connect(Server::Postgres, "postgres").await?;

    let (events, _) = broadcast::channel(EVENTS);
    let compute = Compute::new(
        config.suspend_after,
        config.cold_start,
        Arc::clone(cluster),
        database.clone(),
        events.clone(),
    );
    let timing = config.timing;
    let parts = Parts {
        endpoint: config.endpoint.clone(),
        domain: config.domain.clone(),
        database: database.unwrap_or_else(|| DATABASE.into()),
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
        ground: Arc::clone(&ground),
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
        roles: Roles::new(Arc::clone(cluster), client, timing.access_control_cache),
        cancellable: Cancellable::default(),
        doorkeeper: config.limits_attempts.then(Doorkeeper::default),
    };
    let shared = Arc::new(shared);
    tokio::spawn(serve(Arc::clone(&shared), listener));
    let tokens = config.tokens.clone();
    tokio::spawn(serve_https(shared, tokens, https_listener));
    tokio::spawn(async move { compute.watch().await });
    Ok(parts)
}

/// Listens on a port of 127.0.0.1, and returns which it is.
pub(super) async fn listen(port: u16) -> Result<(TcpListener, u16), Error> {
    let listening = || format!("cannot listen on port {port}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.context(listening)?;
    let port = listener.local_addr().context(listening)?.port();
    Ok((listener, port))
}
