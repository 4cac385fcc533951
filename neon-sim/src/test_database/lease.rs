//! How long a database is there.

use std::sync::Arc;

use crate::servers::server::Server;
use crate::sim::ground::Ground;
use crate::sim::home::home;

/// Removes a database when it is dropped; nobody waits for that.
pub(super) struct Lease {
    ground: Arc<Ground>,
    /// Nothing if the database is to stay.
    database: Option<String>,
}

impl Lease {
    pub(super) fn new(ground: &Arc<Ground>, database: &str) -> Self {
        Self {
            ground: Arc::clone(ground),
            database: Some(database.to_owned()),
        }
    }

    /// Lets the database stay for as long as its server.
    pub(super) fn keep(mut self) {
        self.database = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(database), Ok(home)) = (self.database.take(), home()) else {
            return;
        };
        let ground = Arc::clone(&self.ground);
        let sql = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        home.spawn(async move {
            // One that stays takes room until the process ends.
            if let Ok(client) = ground.cluster.connect(Server::Postgres, "postgres").await {
                let _ = client.batch_execute(&sql).await;
            }
        });
    }
}
