//! Why migrations were not, or not all, run.

mod failed;
mod fault;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

pub use self::failed::FailedMigration;
pub use self::fault::Fault;
use super::report::{Direction, Done, Holder};
use crate::connect::ConnectError;
use crate::env::EnvError;
use crate::transport::TlsError;

type Source = Box<dyn Error + Send + Sync>;

/// Migrations were not, or not all, run; nothing is ever left half done, but see
/// [`Migrator`](super::Migrator) for those that run outside of a transaction.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The environment does not say where the database is.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The URL leads to a pooler, and where the server behind it is cannot be told from it.
    #[error(
        "{host} leads to a pooler, where the lock would not be held; give the direct URL, for one in \
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
    /// No connection came about.
    #[error("no connection for the migrations: {0}")]
    Connect(#[source] ConnectError),
    /// There is no such folder.
    #[error("there is no folder of migrations at {}; name the right one, or create it", .path.display())]
    #[non_exhaustive]
    NoFolder {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The folder has something in it that is not a migration.
    #[error(
        "{} is no migration: its name must begin with a version and it must contain up.sql",
        .path.display()
    )]
    #[non_exhaustive]
    NoMigration {
        /// What is in the way.
        path: PathBuf,
    },
    /// `diesel.toml`, or a migration's `metadata.toml`, cannot be used.
    #[error("{}: {reason}", .path.display())]
    #[non_exhaustive]
    Config {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The migrations cannot be read.
    #[error("the migrations cannot be read: {0}")]
    Source(#[source] Source),
    /// Two migrations have the same version, so that only one of them would ever be applied.
    #[error("{} and {} have the same version, {version}; rename one of them", .names[0], .names[1])]
    #[non_exhaustive]
    Duplicate {
        /// The version.
        version: String,
        /// Their names.
        names: [String; 2],
    },
    /// A migration cannot be read.
    #[error("the migration {name} cannot be read: {source}")]
    #[non_exhaustive]
    Script {
        /// Its name.
        name: String,
        /// Why not.
        source: Source,
    },
    /// A migration is not run as it stands, since it would do something else than it seems to.
    #[error(
        "the migration {name} cannot be {}: its {} {fault}",
        match .direction { Direction::Up => "applied", Direction::Down => "reverted" },
        .direction.file()
    )]
    #[non_exhaustive]
    Faulty {
        /// Its name.
        name: String,
        /// The way that it was to be run.
        direction: Direction,
        /// What is the matter with it.
        fault: Fault,
    },
    /// A migration that is to be reverted has no way back.
    #[error("the migration {name} cannot be reverted: it has no down.sql; nothing was reverted")]
    #[non_exhaustive]
    Irreversible {
        /// Its name.
        name: String,
    },
    /// A migration that is to be reverted is not among those here.
    #[error(
        "the migration {version} is applied, but it is not among these, so that it cannot be reverted \
         here; use the release that has applied it"
    )]
    #[non_exhaustive]
    Unknown {
        /// Its version.
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
        /// Who holds it, as far as the server tells.
        holder: Option<Holder>,
        /// For how long it was waited for.
        waited: Duration,
    },
    /// A migration failed.
    #[error(transparent)]
    Failed(Box<FailedMigration>),
    /// The connection ended before everything was done; the next run goes on from where this one was.
    #[error("the connection was lost {}: {source}", .migration.as_ref().map_or(
        "before a migration began".to_owned(), |name| format!("in the migration {name}")
    ))]
    #[non_exhaustive]
    Lost {
        /// The migration under way. If it was about to commit, only the next run or
        /// [`Migrator::list`](super::Migrator::list) can tell whether it has.
        migration: Option<String>,
        /// What had been done before.
        before: Vec<Done>,
        /// How it ended.
        source: Source,
    },
    /// The server refused what goes with the migrations: the lock, or the table
    /// `__diesel_schema_migrations`.
    #[error("the migrations' own books: {message}")]
    #[non_exhaustive]
    Books {
        /// The server's words.
        message: String,
        /// Its SQLSTATE, where it sent one.
        sqlstate: Option<String>,
    },
    /// The runtime is shutting down.
    #[error("the migrations were stopped: the runtime is shutting down")]
    Stopped,
}

impl MigrateError {
    /// The server's SQLSTATE, where it sent one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Connect(error) => error.sqlstate(),
            Self::Failed(failed) => failed.sqlstate(),
            Self::Books { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// The migrations that were run before it went wrong, and stay so.
    pub fn before(&self) -> &[Done] {
        match self {
            Self::Failed(failed) => &failed.before,
            Self::Lost { before, .. } => before,
            _ => &[],
        }
    }

    pub(in crate::migration) fn books(error: tokio_postgres::Error) -> Self {
        if is_lost(&error) {
            return Self::Lost {
                migration: None,
                before: Vec::new(),
                source: error.into(),
            };
        }
        Self::Books {
            message: message(&error),
            sqlstate: error.code().map(|code| code.code().to_owned()),
        }
    }

    pub(in crate::migration) fn after(mut self, done: Vec<Done>) -> Self {
        match &mut self {
            Self::Failed(failed) => failed.before = done,
            Self::Lost { before, .. } => *before = done,
            _ => {}
        }
        self
    }
}

fn message(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// Whether the session has ended with it.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => {
            code.code().starts_with("08")
                || [
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                ]
                .contains(code)
        }
        None => {
            error.is_closed()
                || error
                    .source()
                    .is_some_and(|source| source.is::<std::io::Error>())
        }
    }
}

crate::util::debug_is_display!(MigrateError);
