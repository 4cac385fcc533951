//! [`FailedMigration`]: which statement failed, where, and in what words.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::{ErrorPosition, SqlState};

use super::{MigrateError, is_lost, message};
use crate::migration::report::{Direction, Done};
use crate::migration::script::Script;
use crate::migration::statements::{Place, offset, statements};

/// A migration failed.
#[derive(Debug)]
pub struct FailedMigration {
    name: String,
    direction: Direction,
    in_transaction: bool,
    statement: Option<String>,
    place: Option<Place>,
    pub(super) before: Vec<Done>,
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

// Without a source: its message has all of the server's words already.
impl Error for FailedMigration {}

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

impl MigrateError {
    /// `batch` failed after so many of its statements.
    pub(in crate::migration) fn failed(
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
    pub(in crate::migration) fn failed_behind(
        script: &Script,
        error: tokio_postgres::Error,
    ) -> Self {
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
}
