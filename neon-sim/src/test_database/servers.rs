//! The servers that the test databases of a process share, and the templates on them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use tokio::sync::OnceCell;

use super::part::Part;
use crate::error::Error;
use crate::servers::names::OWNER;
use crate::servers::pooler::Pooler;
use crate::servers::server::{Server, ServerSettings};
use crate::sim::config::Config;
use crate::sim::ground::Ground;
use crate::sim::home::at_home;
use crate::sync::locked;

/// Room for the pools of many tests, and little for what is never recovered.
const SETTINGS: [(&str, &str); 2] = [("max_connections", "500"), ("max_wal_size", "64MB")];

/// Makes something once, for all who want it meanwhile.
type Once<T> = Arc<OnceCell<T>>;

/// Servers, and the names of the templates on them.
pub(super) struct Servers {
    pub(super) ground: Arc<Ground>,
    templates: Mutex<HashMap<Vec<Part>, Once<String>>>,
}

/// What tells servers apart.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Settings {
    postgres: ServerSettings,
    pooler: Pooler,
    pgbouncer: Option<PathBuf>,
    pgbouncer_settings: ServerSettings,
}

/// The servers of this process.
static SHARED: LazyLock<Mutex<HashMap<Settings, Once<Arc<Servers>>>>> =
    LazyLock::new(Mutex::default);

impl Servers {
    /// Returns the servers with these settings, which run until the process ends; the first who asks starts them.
    pub(super) async fn shared(config: &Config) -> Result<Arc<Self>, Error> {
        let settings = Settings {
            postgres: config.postgres_settings.clone(),
            pooler: config.pooler,
            pgbouncer: config.pgbouncer.clone(),
            pgbouncer_settings: config.pgbouncer_settings.clone(),
        };
        let servers = Arc::clone(locked(&SHARED).entry(settings).or_default());
        let started = servers.get_or_try_init(|| Self::start(config, true)).await;
        started.map(Arc::clone)
    }

    /// Starts servers for one test database.
    pub(super) async fn alone(config: &Config) -> Result<Arc<Self>, Error> {
        Self::start(config, false).await
    }

    async fn start(config: &Config, is_shared: bool) -> Result<Arc<Self>, Error> {
        let mut config = config.clone();
        let own = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.postgres_settings.splice(..0, own);
        let ground = at_home(async move { Ground::start(&config, is_shared).await }).await?;
        Ok(Arc::new(Self {
            ground: Arc::new(ground),
            templates: Mutex::default(),
        }))
    }

    /// Returns the place of the template that these steps lead to.
    pub(super) fn template(&self, parts: &[Part]) -> Once<String> {
        let mut templates = locked(&self.templates);
        Arc::clone(templates.entry(parts.to_vec()).or_default())
    }

    /// Creates a database: a copy of a template, or an empty one.
    pub(super) async fn create(&self, name: &str, template: Option<&str>) -> Result<(), Error> {
        let mut sql = format!("CREATE DATABASE {name} OWNER {OWNER}");
        if let Some(template) = template {
            sql.push_str(" TEMPLATE ");
            sql.push_str(template);
        }
        self.run(sql).await
    }

    /// Ends the sessions in a database, and allows no others: it can be copied from then on.
    pub(super) async fn close(&self, name: &str) -> Result<(), Error> {
        let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        self.run(sql).await?;
        // A copy waits for those that are ending.
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        self.run(sql).await
    }

    async fn run(&self, sql: String) -> Result<(), Error> {
        let ground = Arc::clone(&self.ground);
        at_home(async move {
            let client = ground.cluster.connect(Server::Postgres, "postgres").await?;
            Ok(client.batch_execute(&sql).await?)
        })
        .await
    }
}

/// Returns a number that no other test database of this process has.
pub(super) fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}
