//! The two pools that are compared, behind one interface.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::Integer;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, bb8};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Pool, PooledConnection};
use futures_util::FutureExt;
use neon_sim::NeonSim;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres_rustls::MakeRustlsConnect;

#[derive(Clone, Copy)]
pub(crate) enum Side {
    Stock,
    Ours,
}

/// The settings of both pools.
pub(crate) struct Settings {
    max_size: u32,
    timeout: Duration,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    /// A setting for the stock pool alone: ours refuses it.
    pub(crate) min_idle: Option<u32>,
}

impl Settings {
    pub(crate) fn new(max_size: u32, timeout: Duration) -> Self {
        Self {
            max_size,
            timeout,
            max_lifetime: None,
            idle_timeout: None,
            min_idle: None,
        }
    }

    pub(crate) async fn on(&self, neon: &NeonSim, side: Side) -> AnyPool {
        self.build(neon, &neon.url(), side).await
    }

    pub(crate) async fn build(&self, neon: &NeonSim, url: &str, side: Side) -> AnyPool {
        match side {
            Side::Stock => {
                let mut pool = bb8::Pool::builder()
                    .max_size(self.max_size)
                    .min_idle(self.min_idle)
                    .connection_timeout(self.timeout);
                if let Some(lifetime) = self.max_lifetime {
                    pool = pool.max_lifetime(lifetime);
                }
                if let Some(timeout) = self.idle_timeout {
                    pool = pool.idle_timeout(timeout).reaper_rate(timeout / 2);
                }
                AnyPool::Stock(pool.build_unchecked(stock_manager(neon, url)))
            }
            Side::Ours => {
                let mut pool = Pool::builder(url)
                    .max_size(self.max_size)
                    .never_suspends()
                    .checkout_timeout(self.timeout);
                if let Some(lifetime) = self.max_lifetime {
                    pool = pool.max_lifetime(lifetime);
                }
                if let Some(timeout) = self.idle_timeout {
                    pool = pool.idle_timeout(timeout);
                }
                AnyPool::Ours(pool.build().expect("a pool"))
            }
        }
    }
}

/// Sets TLS up as diesel-async's examples do, and takes from the URL what tokio-postgres refuses.
fn stock_manager(neon: &NeonSim, url: &str) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let url = url.split("&sslrootcert").next().unwrap_or_default();
    let tls = MakeRustlsConnect::new(client_config(neon.ca_path()));
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(move |url| {
        let tls = tls.clone();
        async move {
            let connected = tokio_postgres::connect(url, tls).await;
            let (client, connection) = connected
                .map_err(|error| diesel::ConnectionError::BadConnection(error.to_string()))?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
        .boxed()
    });
    AsyncDieselConnectionManager::new_with_config(url, config)
}

fn client_config(ca: &Path) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("a certificate");
    roots.add(ca).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[derive(Clone)]
pub(crate) enum AnyPool {
    Stock(bb8::Pool<AsyncPgConnection>),
    Ours(Pool),
}

impl AnyPool {
    pub(crate) async fn get(&self) -> Result<Held<'_>, String> {
        match self {
            Self::Stock(pool) => {
                let connection = pool.get().await.map_err(|error| format!("{error:?}"))?;
                Ok(Held::Stock(Box::new(connection)))
            }
            Self::Ours(pool) => {
                let connection = pool.get().await.map_err(|error| format!("{error:?}"))?;
                Ok(Held::Ours(connection))
            }
        }
    }
}

pub(crate) enum Held<'a> {
    Stock(Box<bb8::PooledConnection<'a, AsyncPgConnection>>),
    Ours(PooledConnection<'a>),
}

impl Held<'_> {
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<(), String> {
        let answer = match self {
            Self::Stock(connection) => connection.batch_execute(sql).await,
            Self::Ours(connection) => connection.batch_execute(sql).await,
        };
        answer.map_err(|error| format!("{error:?}"))
    }

    /// Returns the server's process behind the connection.
    pub(crate) async fn process(&mut self) -> i32 {
        let process = diesel::dsl::sql::<Integer>("SELECT pg_backend_pid()");
        let process = match self {
            Self::Stock(connection) => process.get_result(connection).await,
            Self::Ours(connection) => process.get_result(connection).await,
        };
        process.expect("an answer")
    }
}
