//! [`FailedMigration`]: the statement that failed, its place, and the server's words.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::{ErrorPosition, SqlState};

use super::server::message;
use crate::migration::place::{Place, offset};
use crate::migration::report::{Direction, Done};
use crate::migration::script::Script;
use crate::util::statements::statements;

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
    /// `batch` of `script` failed after `completed` of its statements.
    pub(super) fn in_batch(
        script: &Script,
        batch: &str,
        completed: usize,
        error: tokio_postgres::Error,
    ) -> Self {
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
        Self {
            statement: range.map(|range| batch[range.clone()].to_owned()),
            place: at.map(|at| Place::of(batch, at)),
            ..Self::behind(script, error)
        }
    }

    /// The entry or the commit failed, which follow the statements of `script`.
    pub(super) fn behind(script: &Script, error: tokio_postgres::Error) -> Self {
        Self {
            name: script.name.clone(),
            direction: script.direction,
            in_transaction: script.in_transaction,
            statement: None,
            place: None,
            before: Vec::new(),
            error,
        }
    }

    /// Returns the migration's name, that is its folder's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the migration was being applied or reverted.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Returns the statement that failed; `None` if the commit failed, or the entry in
    /// `__diesel_schema_migrations`.
    pub fn statement(&self) -> Option<&str> {
        self.statement.as_deref()
    }

    /// Returns the line of the mistake in the file, counted from one; the statement's first line if the
    /// server names no position.
    pub fn line(&self) -> Option<usize> {
        Some(self.place?.line)
    }

    /// Returns the column in that line, in characters, counted from one.
    pub fn column(&self) -> Option<usize> {
        Some(self.place?.column)
    }

    /// Returns the server's SQLSTATE.
    pub fn sqlstate(&self) -> Option<&str> {
        Some(self.error.code()?.code())
    }

    /// Returns the server's message.
    pub fn message(&self) -> String {
        message(&self.error)
    }

    /// Returns the server's detail.
    pub fn detail(&self) -> Option<&str> {
        self.error.as_db_error()?.detail()
    }

    /// Returns the server's hint.
    pub fn hint(&self) -> Option<&str> {
        self.error.as_db_error()?.hint()
    }

    fn advice(&self) -> Option<&'static str> {
        let Some(code) = self.error.code() else {
            // COPY is the only statement of a script that the driver itself refuses.
            return Some("if it is COPY … FROM STDIN: there is nothing to read, use INSERT");
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
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

// `source()` is `None`: the message has all of the server's words already.
impl Error for FailedMigration {}

/// Returns the statement in one line, cut to the length that a message can bear.
fn excerpt(statement: &str) -> String {
    const LENGTH: usize = 120;
    let words: Vec<_> = statement.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
