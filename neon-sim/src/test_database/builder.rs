//! How a test database is set up.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::database::TestDatabase;
use super::lease::Lease;
use super::migrations::Migration;
use super::part::{Part, Preparation};
use super::servers::{Servers, next_number};
use crate::error::Error;
use crate::servers::pooler::Pooler;
use crate::sim::builder::Builder;
use crate::sim::config::Config;
use crate::sim::ground::Place;
use crate::sim::home::at_home;
use crate::sim::neon_sim::NeonSim;

/// How long a test's compute takes to wake.
const COLD_START: Duration = Duration::from_millis(100);

/// The settings of a [`TestDatabase`], to be changed before [`start`](Self::start).
///
/// [`migrations`](Self::migrations), [`sql`](Self::sql) and [`prepare`](Self::prepare) are steps, which are taken once in a
/// process, in their order and as `neondb_owner`: they make a template, and a database is a copy of the one
/// that the same steps have led to.
#[derive(Debug)]
#[must_use = "nothing starts before `start`"]
pub struct TestDatabaseBuilder {
    neon: Builder,
    steps: Vec<Step>,
    is_alone: bool,
    number: u64,
}

#[derive(Debug)]
enum Step {
    Migrations(PathBuf),
    Part(Part),
}

impl TestDatabase {
    /// Starts an empty database.
    ///
    /// # Errors
    ///
    /// As [`TestDatabaseBuilder::start`].
    pub async fn new() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// Returns the settings of an empty database, to be changed before [`TestDatabaseBuilder::start`].
    pub fn builder() -> TestDatabaseBuilder {
        let number = next_number();
        let neon = NeonSim::builder()
            .never_suspend()
            .cold_start(COLD_START)
            .pooler(Pooler::PgBouncerIfFound)
            .endpoint(format!("ep-test-{number:06}"));
        TestDatabaseBuilder {
            neon,
            steps: Vec::new(),
            is_alone: false,
            number,
        }
    }
}

impl TestDatabaseBuilder {
    /// Run the migrations in a folder, as Diesel's command makes them: each in a folder of its own, with an `up.sql`.
    ///
    /// They are noted where Diesel notes them, so that an app that runs its migrations finds none pending. A relative path begins
    /// at the current directory, which is the package's with `cargo test`.
    pub fn migrations(mut self, folder: impl Into<PathBuf>) -> Self {
        self.steps.push(Step::Migrations(folder.into()));
        self
    }

    /// Run statements, such as a schema, or rows that every test begins with.
    pub fn sql(mut self, sql: impl Into<String>) -> Self {
        self.steps.push(Step::Part(Part::Sql(sql.into())));
        self
    }

    /// Call a function, such as one that runs another tool's migrations, with the database that becomes the template.
    ///
    /// It is a function, or a closure that captures nothing, which the compiler checks: its type tells its template
    /// from others. The sessions that it leaves open are ended.
    pub fn prepare<F, R, E>(mut self, function: F) -> Self
    where
        F: Fn(TestDatabase) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let preparation = Preparation::new(function);
        self.steps.push(Step::Part(Part::Preparation(preparation)));
        self
    }

    /// Change the stand-in's settings.
    ///
    /// Those of PostgreSQL and PgBouncer lead to other servers, which are shared among the databases that want the same.
    pub fn neon(mut self, change: impl FnOnce(Builder) -> Builder) -> Self {
        self.neon = change(self.neon);
        self
    }

    /// Give the database servers of its own, which a test may restart. They take half a second more, and the steps are taken anew.
    pub fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Starts the servers if they do not run, takes the steps if they have not been taken, and copies the template.
    ///
    /// The future may be polled on any executor, and by [`block_on`](crate::block_on).
    ///
    /// # Errors
    ///
    /// When PostgreSQL is missing or does not start, or when a setting cannot be used or a step fails.
    pub async fn start(self) -> Result<TestDatabase, Error> {
        let config = self.neon.config;
        config.validate()?;
        let parts = parts(self.steps)?;
        let servers = match self.is_alone {
            true => Servers::alone(&config).await?,
            false => Servers::shared(&config).await?,
        };
        let template = template(&servers, &config, &parts).await?;
        let database = format!("test_{}", self.number);
        servers.create(&database, template.as_deref()).await?;
        // With servers of its own the database is removed as a part of them.
        let lease = (!self.is_alone).then(|| Lease::new(&servers.ground, &database));
        let neon = NeonSim::start(config, Some(place(&servers, database))).await?;
        Ok(TestDatabase::of(neon, lease))
    }
}

fn parts(steps: Vec<Step>) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for step in steps {
        match step {
            Step::Part(part) => parts.push(part),
            Step::Migrations(folder) => {
                parts.extend(
                    Migration::read_all(&folder)?
                        .into_iter()
                        .map(Part::Migration),
                );
            }
        }
    }
    Ok(parts)
}

/// Returns the name of the template that the steps lead to; the first who asks makes it.
async fn template(
    servers: &Servers,
    config: &Config,
    parts: &[Part],
) -> Result<Option<String>, Error> {
    if parts.is_empty() {
        return Ok(None);
    }
    let template = servers.template(parts);
    let made = template.get_or_try_init(|| make(servers, config, parts));
    Ok(Some(made.await?.clone()))
}

async fn make(servers: &Servers, config: &Config, parts: &[Part]) -> Result<String, Error> {
    let name = format!("template_{}", next_number());
    servers.create(&name, None).await?;
    let lease = Lease::new(&servers.ground, &name);
    for part in parts {
        take(part, servers, config, &name).await?;
    }
    servers.close(&name).await?;
    lease.keep();
    Ok(name)
}

async fn take(part: &Part, servers: &Servers, config: &Config, name: &str) -> Result<(), Error> {
    if let Part::Preparation(preparation) = part {
        let place = place(servers, name.to_owned());
        let neon = NeonSim::start(config.clone(), Some(place)).await?;
        let prepared = preparation.run(TestDatabase::of(neon, None)).await;
        return prepared.map_err(Error::Preparation);
    }
    let (ground, name, part) = (Arc::clone(&servers.ground), name.to_owned(), part.clone());
    at_home(async move {
        let client = ground.cluster.connect_as_owner(&name).await?;
        match part {
            Part::Migration(migration) => migration.run(&client).await,
            Part::Sql(sql) => Ok(client.batch_execute(&sql).await?),
            Part::Preparation(_) => Ok(()),
        }
    })
    .await
}

fn place(servers: &Servers, database: String) -> Place {
    Place {
        ground: Arc::clone(&servers.ground),
        database,
    }
}
