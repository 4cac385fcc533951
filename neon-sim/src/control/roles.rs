//! The roles, as the control plane knows them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::protocol::scram::Verifier;
use crate::servers::cluster::Cluster;
use crate::servers::server::Server;
use crate::sync::locked;

/// The verifiers of the roles' passwords, read past the proxy, so that reading is no activity.
///
/// Neon's proxy has verifiers from the control plane and caches them for a while. This one caches them too, and longer
/// while PostgreSQL is down, since a control plane would still answer then.
pub(crate) struct Roles {
    cluster: Arc<Cluster>,
    client: tokio::sync::Mutex<Arc<Client>>,
    cache: Duration,
    seen: Mutex<HashMap<String, (Instant, Verifier)>>,
    /// The digests of passwords that were right, each with its verifier: finding that out takes thousands of hashes.
    accepted: Mutex<HashSet<Vec<u8>>>,
}

impl Roles {
    pub(crate) fn new(cluster: Arc<Cluster>, client: Client, cache: Duration) -> Self {
        Self {
            cluster,
            cache,
            client: tokio::sync::Mutex::new(Arc::new(client)),
            seen: Mutex::default(),
            accepted: Mutex::default(),
        }
    }

    /// Returns the verifier of a role that may log in with a password.
    pub(crate) async fn verifier(&self, user: &str) -> Option<Verifier> {
        let seen = locked(&self.seen).get(user).cloned();
        let fresh = |(since, _): &&(Instant, _)| since.elapsed() < self.cache;
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

    /// Returns whether this is the password of a role that may log in.
    pub(crate) async fn accepts(&self, user: &str, password: &[u8]) -> bool {
        let Some(verifier) = self.verifier(user).await else {
            return false;
        };
        let digest = verifier.digest_with(password);
        if locked(&self.accepted).contains(&digest) {
            return true;
        }
        let is_right = verifier.accepts(password);
        if is_right {
            locked(&self.accepted).insert(digest);
        }
        is_right
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

    /// Returns the connection, or a new one after PostgreSQL was restarted.
    async fn client(&self) -> Result<Arc<Client>, tokio_postgres::Error> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            let connecting = self.cluster.connect(Server::Postgres, "postgres");
            *client = Arc::new(connecting.await?);
        }
        Ok(Arc::clone(&client))
    }
}
