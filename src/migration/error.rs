//! Why migrations were not, or not all, run.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::{ErrorPosition, SqlState};

use super::report::{Direction, Done, Holder};
use super::script::Script;
use super::statements::{Place, offset, statements};
use crate::connect::ConnectError;
use crate::env::EnvError;
use crate::tls::TlsError;

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
    /// `diesel.toml` cannot be used.
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
        /// The driver's error.
        source: Source,
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

    pub(super) fn books(error: tokio_postgres::Error) -> Self {
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
            source: error.into(),
        }
    }

    /// `batch` failed after so many of its statements.
    pub(super) fn failed(
        script: &Script,
        batch: &str,
        completed: usize,
        error: tokio_postgres::Error,
    ) -> Self {
        if is_lost(&error) {
            return Self::Lost {
                migration: Some(script.name.clone()),
                before: Vec::new(),
                source: error.into(),
            };
        }
        let ranges = statements(batch);
        let position = match error.as_db_error().and_then(|db| db.position()) {
            Some(ErrorPosition::Original(position)) => Some(offset(batch, *position)),
            _ => None,
        };
        let range = match position {
            Some(at) => ranges.iter().rfind(|range| range.start <= at),
            None => ranges.get(completed),
        };
        let at = position.or(range.map(|range| range.start));
        let statement = range.map(|range| batch[range.clone()].to_owned());
        Self::failed_at(script, statement, at.map(|at| Place::of(batch, at)), error)
    }

    /// What was sent behind the migration's own statements failed.
    pub(super) fn failed_behind(script: &Script, error: tokio_postgres::Error) -> Self {
        if is_lost(&error) {
            return Self::failed(script, "", 0, error);
        }
        Self::failed_at(script, None, None, error)
    }

    fn failed_at(
        script: &Script,
        statement: Option<String>,
        place: Option<Place>,
        error: tokio_postgres::Error,
    ) -> Self {
        Self::Failed(Box::new(FailedMigration {
            name: script.name.clone(),
            direction: script.direction,
            in_transaction: script.in_transaction,
            statement,
            place,
            before: Vec::new(),
            error,
        }))
    }

    pub(super) fn after(mut self, done: Vec<Done>) -> Self {
        match &mut self {
            Self::Failed(failed) => failed.before = done,
            Self::Lost { before, .. } => *before = done,
            _ => {}
        }
        self
    }
}

/// A migration failed.
#[derive(Debug)]
pub struct FailedMigration {
    name: String,
    direction: Direction,
    in_transaction: bool,
    statement: Option<String>,
    place: Option<Place>,
    before: Vec<Done>,
    error: tokio_postgres::Error,
}

impl FailedMigration {
    /// The migration's name, that is its folder's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which way it was run.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The statement that failed; `None` where the commit did, or the entry in
    /// `__diesel_schema_migrations`.
    pub fn statement(&self) -> Option<&str> {
        self.statement.as_deref()
    }

    /// The line of the file, counted from one: where the server says that the mistake is, else where
    /// the statement begins.
    pub fn line(&self) -> Option<usize> {
        Some(self.place?.line)
    }

    /// The column in that line, in characters, counted from one.
    pub fn column(&self) -> Option<usize> {
        Some(self.place?.column)
    }

    /// The server's SQLSTATE.
    pub fn sqlstate(&self) -> Option<&str> {
        Some(self.error.code()?.code())
    }

    /// The server's words.
    pub fn message(&self) -> String {
        message(&self.error)
    }

    /// What else the server has to say of it.
    pub fn detail(&self) -> Option<&str> {
        self.error.as_db_error()?.detail()
    }

    /// What the server advises.
    pub fn hint(&self) -> Option<&str> {
        self.error.as_db_error()?.hint()
    }

    fn mend(&self) -> Option<&'static str> {
        let Some(code) = self.error.code() else {
            // The only thing that the server asks for in the middle of a script.
            return Some("where it is COPY … FROM STDIN: there is nothing to read, use INSERT");
        };
        Some(match *code {
            SqlState::LOCK_NOT_AVAILABLE => {
                "another session held the table's lock for longer than lock_timeout; try again in a \
                 quieter moment"
            }
            SqlState::ACTIVE_SQL_TRANSACTION if self.in_transaction => {
                "put `run_in_transaction = false` into its metadata.toml"
            }
            SqlState::ACTIVE_SQL_TRANSACTION => {
                "make it the only statement of its file: several are one transaction"
            }
            SqlState::QUERY_CANCELED => {
                "somebody has cancelled it, or it took longer than statement_timeout"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for FailedMigration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.direction.file();
        write!(f, "the migration {} failed", self.name)?;
        match self.place {
            Some(Place { line, column }) => {
                write!(f, " at line {line}, column {column} of its {file}")?;
            }
            None if self.in_transaction => write!(f, " behind its {file}, at its commit")?,
            None => write!(f, " behind its {file}, as it was noted down")?,
        }
        write!(f, ": {}", self.message())?;
        if let Some(code) = self.sqlstate() {
            write!(f, " (SQLSTATE {code})")?;
        }
        for more in [self.detail(), self.hint()].into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        if let Some(statement) = &self.statement {
            write!(f, "; the statement: {}", excerpt(statement))?;
        }
        match self.mend() {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

impl Error for FailedMigration {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// One line of a statement, as long as a message can bear.
fn excerpt(statement: &str) -> String {
    const LENGTH: usize = 120;
    let words: Vec<_> = statement.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
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
