//! The servers that proxies stand in front of.

use std::sync::Arc;

use super::config::Config;
use crate::error::Error;
use crate::protocol::scram;
use crate::servers::binaries::Binaries;
use crate::servers::cluster::Cluster;
use crate::servers::names::OWNER;
use crate::servers::server::Server;

/// A PostgreSQL with its PgBouncer, for one proxy or for several.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) cluster: Arc<Cluster>,
    pub(super) password: String,
    /// Whether no one proxy may stop the servers.
    pub(super) is_shared: bool,
}

impl Ground {
    /// Starts the servers.
    pub(crate) async fn start(config: &Config, is_shared: bool) -> Result<Self, Error> {
        let password = password();
        let cluster = Cluster::start(
            &password,
            &Binaries::find(config.pooler, config.pgbouncer.as_deref())?,
            &config.postgres_settings,
            &config.pgbouncer_settings,
        )
        .await?;
        let client = cluster.connect(Server::Postgres, "postgres").await?;
        client
            .batch_execute(&format!("ALTER ROLE {OWNER} PASSWORD '{password}'"))
            .await?;
        Ok(Self {
            cluster: Arc::new(cluster),
            password,
            is_shared,
        })
    }
}

/// A database on servers that have others, and the proxy that serves it alone.
pub(crate) struct Place {
    pub(crate) ground: Arc<Ground>,
    pub(crate) database: String,
}

/// Makes up a password of the form that Neon's have.
fn password() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ0123456789";
    let letters = scram::random::<16>()
        .into_iter()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    format!("npg_{}", letters.collect::<String>())
}
