//! [`MigrateError`]: why migrations were not run, or not all of them.

mod failed;
mod fault;
mod server;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

pub use self::failed::FailedMigration;
pub use self::fault::Fault;
use self::server::{is_lost, message};
use super::report::{Direction, Done, Holder};
use super::script::Script;
use crate::connect::ConnectError;
use crate::env::EnvError;
use crate::transport::TlsError;

/// Migrations were not run, or not all of them. None is left half done, but see
/// [`Migrator`](super::Migrator) for those that run outside of a transaction.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The environment does not say where the database is.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The URL leads to a pooler, and does not tell how to reach the server behind it.
    #[error(
        "{host} leads to a pooler, which cannot hold the lock; give the direct URL, such as in \
         DATABASE_URL_UNPOOLED"
    )]
    #[non_exhaustive]
    NoDirectEndpoint {
        /// The first host of the URL.
        host: String,
    },
    /// The certificates to trust cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection for the migrations could not be made.
    #[error("no connection for the migrations")]
    Connect(#[source] ConnectError),
    /// The folder of the migrations does not exist.
    #[error("there is no folder of migrations at {}; name the right one, or create it", .path.display())]
    #[non_exhaustive]
    NoFolder {
        /// The path of the missing folder.
        path: PathBuf,
    },
    /// The folder has an entry that is not a migration.
    #[error(
        "{} is no migration: its name must begin with a version and it must contain up.sql",
        .path.display()
    )]
    #[non_exhaustive]
    NoMigration {
        /// The path of the entry.
        path: PathBuf,
    },
    /// `diesel.toml`, or a migration's `metadata.toml`, cannot be used.
    #[error("{}: {reason}", .path.display())]
    #[non_exhaustive]
    Config {
        /// The path of the file.
        path: PathBuf,
        /// Why the file cannot be used.
        reason: String,
    },
    /// The migrations cannot be read.
    #[error("the migrations cannot be read")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// Two migrations have the same version, so that only one of them would ever be applied.
    #[error("{} and {} have the same version, {version}; rename one of them", .names[0], .names[1])]
    #[non_exhaustive]
    Duplicate {
        /// The version.
        version: String,
        /// The names of the two migrations.
        names: [String; 2],
    },
    /// A migration cannot be read.
    #[error("the migration {name} cannot be read")]
    #[non_exhaustive]
    Script {
        /// The migration's name.
        name: String,
        /// Why the migration cannot be read.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A migration is refused, since its SQL would not do what it seems to do.
    #[error(
        "the migration {name} cannot be {}: its {} {fault}",
        match .direction { Direction::Up => "applied", Direction::Down => "reverted" },
        .direction.file()
    )]
    #[non_exhaustive]
    Faulty {
        /// The migration's name.
        name: String,
        /// Whether the migration was to be applied or reverted.
        direction: Direction,
        /// Why its SQL cannot be run.
        fault: Fault,
    },
    /// A migration that is to be reverted has no way back.
    #[error("the migration {name} cannot be reverted: it has no down.sql; nothing was reverted")]
    #[non_exhaustive]
    Irreversible {
        /// The migration's name.
        name: String,
    },
    /// A migration that is to be reverted is not among the migrator's.
    #[error(
        "the migration {version} is applied, but it is not among these, so that it cannot be reverted \
         here; use the release that has applied it"
    )]
    #[non_exhaustive]
    Unknown {
        /// The migration's version.
        version: String,
    },
    /// Another session has held the lock all the time.
    #[error(
        "the migrations' lock was not free within {waited:?}: it is held by {}; try again when that is \
         done, or raise lock_wait",
        .holder.as_ref().map_or("another session".to_owned(), Holder::to_string)
    )]
    #[non_exhaustive]
    Locked {
        /// The session that holds the lock, as far as the server tells.
        holder: Option<Holder>,
        /// How long the migrator waited.
        waited: Duration,
    },
    /// A migration failed.
    #[error(transparent)]
    Failed(Box<FailedMigration>),
    /// The connection ended before all migrations were run; the next run continues from there.
    #[error("the connection was lost {}; run the migrations again", .migration.as_ref().map_or(
        "before a migration began".to_owned(), |name| format!("in the migration {name}")
    ))]
    #[non_exhaustive]
    Lost {
        /// The migration under way. If the connection ended during its commit, only the next run or
        /// [`Migrator::list`](super::Migrator::list) can tell whether it is applied.
        migration: Option<String>,
        /// The migrations that were run before.
        before: Vec<Done>,
        /// How the connection ended.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server refused a statement of the migrator's own, on the lock or on the table
    /// `__diesel_schema_migrations`.
    #[error("the table or the lock of the migrations: {message}")]
    #[non_exhaustive]
    MigrationTable {
        /// The server's words.
        message: String,
        /// The server's SQLSTATE, if it sent one.
        sqlstate: Option<String>,
    },
    /// The runtime is shutting down.
    #[error("the migrations were stopped: the runtime is shutting down")]
    Stopped,
}

impl MigrateError {
    /// Returns the server's SQLSTATE, if it sent one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Connect(error) => error.sqlstate(),
            Self::Failed(failed) => failed.sqlstate(),
            Self::MigrationTable { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// Returns the migrations that were run before the failure, and stay so.
    pub fn before(&self) -> &[Done] {
        match self {
            Self::Failed(failed) => &failed.before,
            Self::Lost { before, .. } => before,
            _ => &[],
        }
    }

    /// A statement of the migrator's own failed.
    pub(in crate::migration) fn migration_table(error: tokio_postgres::Error) -> Self {
        if is_lost(&error) {
            return Self::lost(None, error);
        }
        Self::MigrationTable {
            message: message(&error),
            sqlstate: error.code().map(|code| code.code().to_owned()),
        }
    }

    /// `batch` of `script` failed after `completed` of its statements.
    pub(in crate::migration) fn failed(
        script: &Script,
        batch: &str,
        completed: usize,
        error: tokio_postgres::Error,
    ) -> Self {
        if is_lost(&error) {
            return Self::lost(Some(script), error);
        }
        let failed = FailedMigration::in_batch(script, batch, completed, error);
        Self::Failed(Box::new(failed))
    }

    /// The entry or the commit failed, which follow the statements of `script`.
    pub(in crate::migration) fn failed_behind(
        script: &Script,
        error: tokio_postgres::Error,
    ) -> Self {
        if is_lost(&error) {
            return Self::lost(Some(script), error);
        }
        Self::Failed(Box::new(FailedMigration::behind(script, error)))
    }

    fn lost(script: Option<&Script>, error: tokio_postgres::Error) -> Self {
        Self::Lost {
            migration: script.map(|script| script.name.clone()),
            before: Vec::new(),
            source: error.into(),
        }
    }

    /// Adds the migrations that were run before the failure.
    pub(in crate::migration) fn after(mut self, done: Vec<Done>) -> Self {
        match &mut self {
            Self::Failed(failed) => failed.before = done,
            Self::Lost { before, .. } => *before = done,
            _ => {}
        }
        self
    }
}

crate::util::debug_is_chain!(MigrateError);

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::url::UrlError;
    use crate::util::error_chain::assert_each_said_once;

    #[test]
    fn an_error_leaves_the_words_of_its_cause_to_its_source() {
        let cause = || io::Error::other("the cause");
        let errors: [MigrateError; 6] = [
            MigrateError::Connect(ConnectError::of_server_error("refused".to_owned(), None)),
            MigrateError::Source(cause().into()),
            MigrateError::Script {
                name: "1_a".to_owned(),
                source: cause().into(),
            },
            MigrateError::Lost {
                migration: None,
                before: Vec::new(),
                source: cause().into(),
            },
            TlsError::Rustls(rustls::Error::General("the cause".to_owned())).into(),
            EnvError::Url {
                variable: "DATABASE_URL",
                source: UrlError::NoHost,
            }
            .into(),
        ];
        for error in errors {
            let source = error.source().expect("a cause").to_string();
            assert_each_said_once(&error);
            assert!(format!("{error:?}").ends_with(&source), "{error:?}");
        }
    }
}
