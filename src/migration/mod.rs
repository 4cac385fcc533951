//! [`Migrator`]: migrations over the direct endpoint, under a lock (feature `migrations`).
//!
//! ```no_run
//! use diesel_migrations::{EmbeddedMigrations, embed_migrations};
//! use diesel_neon::migration::Migrator;
//!
//! const MIGRATIONS: EmbeddedMigrations = embed_migrations!();
//!
//! # async fn doc() -> Result<(), diesel_neon::migration::MigrateError> {
//! let report = Migrator::from_env(MIGRATIONS)?.run_pending().await?;
//! for done in report.done {
//!     println!("{} took {:?}", done.name, done.took);
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod folder;
mod ledger;
mod lock;
mod report;
mod run;
mod script;
mod session;
mod statements;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;

pub use self::error::{FailedMigration, Fault, MigrateError};
pub use self::folder::folder;
pub use self::lock::LOCK_KEY;
pub use self::report::{Direction, Done, Holder, Listed, Progress, Report, State};
use self::run::{Order, detached};
use self::script::Known;
pub use self::script::Script;
use crate::env;
use crate::url::{DatabaseUrl, Endpoint};

/// Runs migrations, each exactly once, however many processes start at once.
///
/// It connects to the **direct** endpoint, whatever URL it is given; takes a lock; looks only then at
/// what is pending; and runs each migration in a transaction together with its entry in
/// `__diesel_schema_migrations`, unless its `metadata.toml` says `run_in_transaction = false`. Layout
/// and table are the `diesel` CLI's, so that both can be used in turn; the CLI knows nothing of the
/// lock.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`lock_wait`](Self::lock_wait) | 5 min | another instance may be at a long migration |
/// | [`lock_timeout`](Self::lock_timeout) | 10 s | whoever waits for a table's lock makes everybody behind wait; strong_migrations' number |
/// | [`statement_timeout`](Self::statement_timeout) | 1 h | ends what runs away; strong_migrations' number |
///
/// # What is not run
///
/// A migration whose file is still empty, whose SQL ends the transaction that it is run in, or that has a
/// byte order mark or a zero byte, is refused before anything is run ([`MigrateError::Faulty`]); so is, by
/// [`folder`], a `metadata.toml` that does not say `run_in_transaction` and nothing else.
/// (`embed_migrations!` takes one that it cannot understand for none.)
///
/// A checksum of what was applied stands in a table of its own, `__diesel_neon_checksums`, beside the
/// `diesel` CLI's, which is left as it is. By it [`list`](Self::list) and [`Progress::Edited`] tell what
/// was edited after it was applied; of what the CLI has applied, they say nothing.
///
/// # When it is dropped or cut off
///
/// Dropping a future of this type, as `select!` does, cancels the statement under way and closes the
/// connection, which frees the lock; so does a lost connection or a killed process, at the latest
/// when the server notices. A migration in a transaction is then there with all it does, or not at
/// all. One outside of a transaction should be a single statement: Postgres runs several in one file
/// as one transaction, and some, like `CREATE INDEX CONCURRENTLY`, not among others at all. It is
/// noted down behind that, so that a connection that is lost in between leaves a migration that is
/// applied and not noted: `IF NOT EXISTS` makes it repeatable. A cancelled `CREATE INDEX
/// CONCURRENTLY` leaves an invalid index, as ever.
///
/// # What a migration can rely on
///
/// Settings that one leaves behind (`SET`, `SET ROLE`) are reset before the next, so that it does the
/// same whether it is run alone or among others. A migration that is written in Rust is asked for
/// its statements first, which are then run: it can use `batch_execute`, and nothing that depends on
/// an answer.
///
/// It runs on every kind of tokio runtime, the current-thread one too.
#[derive(Clone)]
pub struct Migrator {
    url: DatabaseUrl,
    source: Arc<dyn MigrationSource<Pg> + Send + Sync>,
    lock_wait: Duration,
    lock_timeout: Option<Duration>,
    statement_timeout: Option<Duration>,
    on_progress: Option<Arc<Hear>>,
}

type Hear = dyn Fn(&Progress) + Send + Sync;

impl Migrator {
    /// Prepares to migrate the database at `url`, pooled or direct, with `embed_migrations!`'s result
    /// or a [`folder`]; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`MigrateError::NoDirectEndpoint`] where no direct URL can be derived.
    pub fn new(
        url: &DatabaseUrl,
        source: impl MigrationSource<Pg> + Send + Sync + 'static,
    ) -> Result<Self, MigrateError> {
        let url = url.direct();
        if url.endpoint() == Endpoint::Pooled {
            return Err(MigrateError::NoDirectEndpoint {
                host: url.hosts()[0].name.to_string(),
            });
        }
        Ok(Self {
            url,
            source: Arc::new(source),
            lock_wait: Duration::from_secs(5 * 60),
            lock_timeout: Some(Duration::from_secs(10)),
            statement_timeout: Some(Duration::from_secs(60 * 60)),
            on_progress: None,
        })
    }

    /// Like [`new`](Self::new) with [`env::direct_url`], and what the environment lacks from a `.env` file in this
    /// folder, or the nearest one above it.
    ///
    /// The file is read for this URL alone; [`env::load_dotenv`] puts all of it into the environment.
    ///
    /// # Errors
    ///
    /// [`MigrateError::Env`] says which variables were looked at, or which one cannot be used.
    pub fn from_env(
        source: impl MigrationSource<Pg> + Send + Sync + 'static,
    ) -> Result<Self, MigrateError> {
        Self::new(&env::direct_url_or_dotenv()?.url, source)
    }

    /// How long another session that holds the lock is waited for. Default: 5 min. Zero gives up at
    /// once.
    ///
    /// Instances that start together wait for the first, so a value below what the migrations take
    /// makes them fail.
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// How long a migration in a transaction waits for a lock on a table. Default: 10 s. `None` waits
    /// for ever.
    ///
    /// A statement that waits for an `ALTER TABLE`'s lock makes all queries of that table behind it
    /// wait too. Migrations outside of a transaction are left alone: `CREATE INDEX CONCURRENTLY`
    /// waits for every transaction that is older, and nobody waits for it.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.lock_timeout = timeout.into();
        self
    }

    /// How long each statement may take. Default: 1 h. `None` lets it take for ever.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.statement_timeout = timeout.into();
        self
    }

    /// Hears of what happens while it happens; `tracing` does in any case.
    ///
    /// It is called on the runtime's threads and should not block.
    #[must_use]
    pub fn on_progress(mut self, hear: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(hear));
        self
    }

    /// Applies what is pending, in the order of the versions.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`]; [`before`](MigrateError::before) has what stays applied.
    pub async fn run_pending(&self) -> Result<Report, MigrateError> {
        self.change(Order::Run).await
    }

    /// Reverts the last `n` applied migrations, the latest first; all where there are fewer.
    ///
    /// That each of them can be reverted is looked at before the first one is.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`]; [`before`](MigrateError::before) has what stays reverted.
    pub async fn revert(&self, n: usize) -> Result<Report, MigrateError> {
        self.change(Order::Revert(n)).await
    }

    /// Reverts the last `n` applied migrations and applies them again; in one transaction, unless one
    /// of them runs outside of one.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`]; [`before`](MigrateError::before) has what stays done.
    pub async fn redo(&self, n: usize) -> Result<Report, MigrateError> {
        self.change(Order::Redo(n)).await
    }

    /// Every migration, here or applied, in the order of the versions.
    ///
    /// Takes no lock and changes nothing, as do [`pending`](Self::pending) and
    /// [`dry_run`](Self::dry_run).
    ///
    /// # Errors
    ///
    /// See [`MigrateError`].
    pub async fn list(&self) -> Result<Vec<Listed>, MigrateError> {
        let migrator = self.clone();
        detached(async move |stop| migrator.look(stop).await).await
    }

    /// The migrations that are not applied yet.
    ///
    /// For a readiness check, ask until it is empty and not again: every call makes a connection,
    /// which keeps the compute awake.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`].
    pub async fn pending(&self) -> Result<Vec<Listed>, MigrateError> {
        let mut listed = self.list().await?;
        listed.retain(|listed| listed.state == State::Pending);
        Ok(listed)
    }

    /// What [`run_pending`](Self::run_pending) would run now, with its SQL.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`].
    pub async fn dry_run(&self) -> Result<Vec<Script>, MigrateError> {
        let pending = self.pending().await?;
        let known = Known::load(&*self.source)?;
        let scripts = pending
            .iter()
            .map(|listed| known.script(&listed.version, Direction::Up));
        scripts.collect()
    }
}

impl fmt::Debug for Migrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrator")
            .field("url", &self.url)
            .field("lock_wait", &self.lock_wait)
            .field("lock_timeout", &self.lock_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}
