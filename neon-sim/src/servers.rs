//! Ending what the servers behind the proxy still do for sessions that are gone.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::SimpleQueryMessage;

use crate::cluster::{self, DATABASE};

const PAUSE: Duration = Duration::from_millis(2);

/// The servers whose connections a suspension ends.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) directory: PathBuf,
    pub(crate) postgres_port: u16,
    pub(crate) pgbouncer_port: u16,
}

impl Servers {
    /// Ends everything that came through the proxy, so that no state outlives the suspension.
    pub(crate) async fn disconnect(&self) -> Result<(), tokio_postgres::Error> {
        let postgres = cluster::connect(&self.directory, self.postgres_port, DATABASE).await?;
        let statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type IN ('client backend', 'walsender') AND client_addr IS NULL \
             AND application_name <> 'neon-sim'";
        let backend = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(_));
        while postgres.simple_query(statement).await?.iter().any(backend) {
            sleep(PAUSE).await;
        }
        let pgbouncer = cluster::connect(&self.directory, self.pgbouncer_port, "pgbouncer").await?;
        let server = |message: &SimpleQueryMessage| {
            matches!(message, SimpleQueryMessage::Row(row)
                if row.get("database") != Some("pgbouncer"))
        };
        while pgbouncer
            .simple_query("SHOW SERVERS")
            .await?
            .iter()
            .any(server)
        {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}
