//! What the proxy knows of the roles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::cluster::Cluster;
use crate::faults::locked;
use crate::scram::Verifier;

/// Reads verifiers; not through the proxy, so that it does not count as activity.
///
/// Neon's proxy has them from the control plane and keeps them for a while. So does this one, and longer
/// where PostgreSQL is down, while a control plane would still answer.
pub(crate) struct Catalog {
    cluster: Arc<Cluster>,
    client: tokio::sync::Mutex<Arc<Client>>,
    memory: Duration,
    seen: Mutex<HashMap<String, (Instant, Verifier)>>,
}

impl Catalog {
    pub(crate) fn new(cluster: Arc<Cluster>, client: Client, memory: Duration) -> Self {
        Self {
            cluster,
            memory,
            client: tokio::sync::Mutex::new(Arc::new(client)),
            seen: Mutex::default(),
        }
    }

    pub(crate) async fn verifier(&self, user: &str) -> Option<Verifier> {
        let seen = locked(&self.seen).get(user).cloned();
        let fresh = |(since, _): &&(Instant, _)| since.elapsed() < self.memory;
        if let Some((_, verifier)) = seen.as_ref().filter(fresh) {
            return Some(verifier.clone());
        }
        let Ok(verifier) = self.read(user).await else {
            return seen.map(|(_, verifier)| verifier);
        };
        if let Some(verifier) = &verifier {
            let now = (Instant::now(), verifier.clone());
            locked(&self.seen).insert(user.to_owned(), now);
        }
        verifier
    }

    async fn read(&self, user: &str) -> Result<Option<Verifier>, tokio_postgres::Error> {
        let rows = self
            .client()
            .await?
            .query_typed(
                "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 \
                 AND (rolvaliduntil IS NULL OR rolvaliduntil > now())",
                &[(&user, Type::TEXT)],
            )
            .await?;
        let password = rows.first().and_then(|row| row.get::<_, Option<&str>>(0));
        Ok(password.and_then(Verifier::parse))
    }

    /// Another one where PostgreSQL has been restarted.
    async fn client(&self) -> Result<Arc<Client>, tokio_postgres::Error> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            let port = self.cluster.postgres_port;
            *client = Arc::new(self.cluster.connect(port, "postgres").await?);
        }
        Ok(Arc::clone(&client))
    }
}
