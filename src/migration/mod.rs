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
mod known;
mod lock;
mod place;
mod report;
mod run;
mod script;
mod session;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;

pub use self::error::{FailedMigration, Fault, MigrateError};
pub use self::folder::folder;
use self::known::Known;
pub use self::lock::LOCK_KEY;
pub use self::report::{Direction, Done, Holder, Listed, Progress, Report, State};
use self::run::{Order, Runner};
pub use self::script::Script;
use crate::env;
use crate::url::{DatabaseUrl, Endpoint};

/// Runs migrations, each exactly once, however many processes start at once.
///
/// A migrator connects to the **direct** endpoint, whatever URL it is given; takes a lock; looks only then
/// for pending migrations; and runs each in a transaction together with its entry in
/// `__diesel_schema_migrations`, unless its `metadata.toml` says `run_in_transaction = false`. Layout
/// and table are the `diesel` CLI's, so that both can be used in turn; the CLI knows nothing of the
/// lock.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`lock_wait`](Self::lock_wait) | 5 min | another instance may run a long migration |
/// | [`lock_timeout`](Self::lock_timeout) | 10 s | a statement that waits for a table's lock makes all behind it wait; strong_migrations' number |
/// | [`statement_timeout`](Self::statement_timeout) | 1 h | ends a runaway statement; strong_migrations' number |
///
/// # Refused migrations
///
/// A migration is refused before any is run ([`MigrateError::Faulty`]) if its file is still empty, if its SQL
/// ends the transaction that it is run in, or if it has a byte order mark or a zero byte. [`folder()`] refuses
/// a `metadata.toml` with anything but `run_in_transaction`. (`embed_migrations!` ignores one that it cannot
/// understand.)
///
/// A table of its own, `__diesel_neon_checksums`, has a checksum of each applied migration; the `diesel`
/// CLI's table is left as it is. By the checksum [`list`](Self::list) and [`Progress::Edited`] tell which
/// migrations were edited after they were applied, except those that the CLI has applied.
///
/// # Dropped futures and lost connections
///
/// Dropping a future of this type, as `select!` does, cancels the statement under way and closes the
/// connection, which frees the lock; so does a lost connection or a killed process, at the latest
/// when the server notices. A migration in a transaction is then applied as a whole, or not at
/// all. A migration outside of a transaction should be a single statement: Postgres runs several in one file
/// as one transaction, and refuses some, like `CREATE INDEX CONCURRENTLY`, among others. Its entry follows
/// in a statement of its own, so that a connection that is lost in between leaves a migration that is
/// applied and not recorded: `IF NOT EXISTS` makes it repeatable. A cancelled `CREATE INDEX
/// CONCURRENTLY` leaves an invalid index, as ever.
///
/// # The session of a migration
///
/// Settings that a migration leaves behind (`SET`, `SET ROLE`) are reset before the next, so that each does
/// the same whether it is run alone or among others. A migration that is written in Rust is first asked for
/// its statements, which are then run: it can use `batch_execute`, and no method that reads a result.
///
/// A migrator runs on every kind of tokio runtime, the current-thread one too.
#[derive(Clone)]
#[must_use = "a migrator does nothing until one of its methods is awaited"]
pub struct Migrator {
    runner: Runner,
}

impl Migrator {
    /// Prepares to migrate the database at `url`, pooled or direct, with `embed_migrations!`'s result
    /// or a [`folder()`]; makes no connection yet.
    ///
    /// # Errors
    ///
    /// Returns [`MigrateError::NoDirectEndpoint`] if no direct URL can be derived.
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
            runner: Runner {
                url,
                source: Arc::new(source),
                lock_wait: Duration::from_secs(5 * 60),
                lock_timeout: Some(Duration::from_secs(10)),
                statement_timeout: Some(Duration::from_secs(60 * 60)),
                on_progress: None,
            },
        })
    }

    /// Prepares to migrate the database at [`env::direct_url`], and reads variables that the environment lacks
    /// from the `.env` file in this folder, or the nearest one above it.
    ///
    /// The file is read for this URL alone; [`env::load_dotenv`] puts all of it into the environment.
    ///
    /// # Errors
    ///
    /// Returns [`MigrateError::Env`], which names the variables that were looked at, or the one that cannot be
    /// used.
    pub fn from_env(
        source: impl MigrationSource<Pg> + Send + Sync + 'static,
    ) -> Result<Self, MigrateError> {
        Self::new(&env::direct_url_or_dotenv()?.url, source)
    }

    /// Sets how long to wait for the lock while another session holds it. Default: 5 min. Zero gives up at
    /// once, with [`MigrateError::Locked`].
    ///
    /// Instances that start together wait for the first, and fail if the migrations take longer than this.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.runner.lock_wait = wait;
        self
    }

    /// Sets how long a migration in a transaction waits for a lock on a table. Default: 10 s. `None` waits
    /// for ever.
    ///
    /// A statement that waits for an `ALTER TABLE`'s lock makes all queries of that table behind it
    /// wait too. Migrations outside of a transaction are left alone: `CREATE INDEX CONCURRENTLY`
    /// waits for every older transaction, and nobody waits for it.
    pub fn lock_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.runner.lock_timeout = timeout.into();
        self
    }

    /// Sets how long each statement may take. Default: 1 h, which ends a runaway one. `None` lets it take
    /// for ever.
    pub fn statement_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.runner.statement_timeout = timeout.into();
        self
    }

    /// Sets a function that is told each step of a run as it happens; `tracing` is told in any case.
    ///
    /// The function is called on the runtime's threads and should not block.
    pub fn on_progress(mut self, on_progress: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.runner.on_progress = Some(Arc::new(on_progress));
        self
    }

    /// Applies the pending migrations, in the order of the versions.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`]; [`before`](MigrateError::before) has the migrations that stay applied.
    pub async fn run_pending(&self) -> Result<Report, MigrateError> {
        self.runner.run(Order::Run).await
    }

    /// Reverts the last `n` applied migrations, the latest first; all if there are fewer.
    ///
    /// Checks that each of them can be reverted before the first one is.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`]; [`before`](MigrateError::before) has the migrations that stay reverted.
    pub async fn revert(&self, n: usize) -> Result<Report, MigrateError> {
        self.runner.run(Order::Revert(n)).await
    }

    /// Reverts the last `n` applied migrations and applies them again; in one transaction, unless one
    /// of them runs outside of one.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`]; [`before`](MigrateError::before) has the steps that stay done.
    pub async fn redo(&self, n: usize) -> Result<Report, MigrateError> {
        self.runner.run(Order::Redo(n)).await
    }

    /// Returns every migration that the migrator has or that is applied, in the order of the versions.
    ///
    /// Takes no lock and changes nothing, as do [`pending`](Self::pending) and
    /// [`dry_run`](Self::dry_run).
    ///
    /// # Errors
    ///
    /// See [`MigrateError`].
    pub async fn list(&self) -> Result<Vec<Listed>, MigrateError> {
        self.runner.list().await
    }

    /// Returns the migrations that are not applied yet.
    ///
    /// For a readiness check, call this until it returns none and not again: every call makes a connection,
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

    /// Returns the scripts that [`run_pending`](Self::run_pending) would run now.
    ///
    /// # Errors
    ///
    /// See [`MigrateError`].
    pub async fn dry_run(&self) -> Result<Vec<Script>, MigrateError> {
        let pending = self.pending().await?;
        let known = Known::load(&*self.runner.source)?;
        let scripts = pending
            .iter()
            .map(|listed| known.script(&listed.version, Direction::Up));
        scripts.collect()
    }
}

impl fmt::Debug for Migrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrator")
            .field("url", &self.runner.url)
            .field("lock_wait", &self.runner.lock_wait)
            .field("lock_timeout", &self.runner.lock_timeout)
            .field("statement_timeout", &self.runner.statement_timeout)
            .finish_non_exhaustive()
    }
}
