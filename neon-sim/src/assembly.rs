//! Putting the parts of a stand-in together, and its thread.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::sync::{broadcast, oneshot};

use crate::binaries::Binaries;
use crate::builder::Builder;
use crate::catalog::Catalog;
use crate::cluster::{Cluster, OWNER};
use crate::compute::Compute;
use crate::counters::Tally;
use crate::error::{Attempt, Error};
use crate::event::Event;
use crate::faults::Faults;
use crate::link::Delay;
use crate::proxy::Proxy;
use crate::scram;
use crate::servers::Servers;
use crate::tls::Tls;

const EVENTS: usize = 256;

/// What there is to know about a running stand-in.
pub(crate) struct Parts {
    pub(crate) endpoint: String,
    pub(crate) domain: String,
    pub(crate) password: String,
    pub(crate) directory: PathBuf,
    pub(crate) ca_path: PathBuf,
    pub(crate) port: u16,
    pub(crate) postgres_port: u16,
    pub(crate) pgbouncer_port: u16,
    pub(crate) pgbouncer_version: (u32, u32),
    pub(crate) compute: Arc<Compute>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) delay: Delay,
    pub(crate) direct: Arc<Tally>,
    pub(crate) pooled: Arc<Tally>,
    pub(crate) events: broadcast::Sender<Event>,
    /// The last to go, since its servers end when it does.
    pub(crate) cluster: Arc<Cluster>,
}

/// A stand-in that runs until the sender is dropped.
pub(crate) type Started = Result<(Parts, Handle, oneshot::Sender<()>), Error>;

/// The life of the stand-in's thread.
pub(crate) fn run(builder: &Builder, started: oneshot::Sender<Started>) {
    let runtime = match runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .attempt(|| "cannot start a runtime".into())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            // Whoever wanted it has gone, if this fails.
            let _ = started.send(Err(error));
            return;
        }
    };
    let cluster = runtime.block_on(async {
        match assemble(builder).await {
            Ok((parts, cluster)) => {
                let (stop, stopped) = oneshot::channel();
                if started.send(Ok((parts, Handle::current(), stop))).is_ok() {
                    // The sender is never used, only dropped.
                    let _ = stopped.await;
                }
                Some(cluster)
            }
            Err(error) => {
                // As above.
                let _ = started.send(Err(error));
                None
            }
        }
    });
    // A connection left open could make PostgreSQL wait for what it has to say.
    drop(runtime);
    drop(cluster);
}

async fn assemble(builder: &Builder) -> Result<(Parts, Arc<Cluster>), Error> {
    let password = password();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, builder.port))
        .await
        .attempt(|| format!("cannot listen on port {}", builder.port))?;
    let port = listener
        .local_addr()
        .attempt(|| "cannot listen".into())?
        .port();
    let cluster = Arc::new(
        Cluster::start(
            &password,
            &Binaries::find(builder.pgbouncer.as_deref())?,
            &builder.postgres_settings,
            &builder.pgbouncer_settings,
        )
        .await?,
    );
    let directory = cluster.directory().to_owned();
    let ca_path = directory.join("ca.pem");
    let tls = Tls::new(&builder.domain, builder.certificate, &ca_path)?;
    let catalog = cluster.connect(cluster.postgres_port, "postgres").await?;
    catalog
        .batch_execute(&format!("ALTER ROLE {OWNER} PASSWORD '{password}'"))
        .await?;

    let (events, _) = broadcast::channel(EVENTS);
    let compute = Compute::new(
        builder.suspend_after,
        builder.cold_start,
        Servers {
            directory: directory.clone(),
            postgres_port: cluster.postgres_port,
            pgbouncer_port: cluster.pgbouncer_port,
        },
        events.clone(),
    );
    let parts = Parts {
        endpoint: builder.endpoint.clone(),
        domain: builder.domain.clone(),
        password,
        directory,
        ca_path,
        port,
        postgres_port: cluster.postgres_port,
        pgbouncer_port: cluster.pgbouncer_port,
        pgbouncer_version: cluster.pgbouncer_version,
        compute: Arc::clone(&compute),
        faults: Arc::new(Faults::new(builder.times.wake_error_cache)),
        delay: Delay::default(),
        direct: Arc::default(),
        pooled: Arc::default(),
        events,
        cluster: Arc::clone(&cluster),
    };
    let proxy = Arc::new(Proxy {
        domain: parts.domain.clone(),
        endpoint: parts.endpoint.clone(),
        tls,
        channel_binding: builder.channel_binding,
        times: builder.times,
        compute: Arc::clone(&compute),
        faults: Arc::clone(&parts.faults),
        delay: parts.delay.clone(),
        direct: Arc::clone(&parts.direct),
        pooled: Arc::clone(&parts.pooled),
        postgres: cluster.socket(cluster.postgres_port),
        pgbouncer: cluster.socket(cluster.pgbouncer_port),
        catalog: Catalog::new(
            Arc::clone(&cluster),
            catalog,
            builder.times.access_control_cache,
        ),
        sessions: Mutex::new(HashMap::new()),
    });
    tokio::spawn(proxy.serve(listener));
    tokio::spawn(async move { compute.watch().await });
    Ok((parts, cluster))
}

/// A password of the form that Neon makes up.
fn password() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ0123456789";
    let letters = scram::random::<16>()
        .into_iter()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    format!("npg_{}", letters.collect::<String>())
}
