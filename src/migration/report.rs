//! The migrator's reports: what it has done, what it does, and which migrations there are.

use std::fmt;
use std::time::Duration;

/// Whether a migration is applied or reverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Direction {
    /// `up.sql` applies the migration.
    Up,
    /// `down.sql` reverts the migration.
    Down,
}

impl Direction {
    /// Returns the name of the file that holds this direction's SQL.
    pub fn file(self) -> &'static str {
        match self {
            Self::Up => "up.sql",
            Self::Down => "down.sql",
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Report {
    /// The migrations that were run, in order. Empty if there was nothing to do, such as when another
    /// process has run them.
    pub done: Vec<Done>,
    /// How long the migrator waited for the lock.
    pub waited: Duration,
}

/// A migration that was run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Done {
    /// The migration's name, that is its folder's.
    pub name: String,
    /// The migration's version: its name up to the first `_`, without dashes.
    pub version: String,
    /// Whether the migration was applied or reverted.
    pub direction: Direction,
    /// How long the migration took, its commit included.
    pub took: Duration,
}

/// A step of a run; see [`Migrator::on_progress`](super::Migrator::on_progress).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Progress {
    /// Another session holds the lock. The step is told again when the lock passes to yet another one.
    #[non_exhaustive]
    Waiting {
        /// The session that holds the lock.
        holder: Holder,
    },
    /// A migration was edited after it was applied: its present SQL was not run here.
    #[non_exhaustive]
    Edited {
        /// The migration's name.
        name: String,
    },
    /// A migration begins.
    #[non_exhaustive]
    Started {
        /// The migration's name.
        name: String,
        /// Whether the migration is applied or reverted.
        direction: Direction,
    },
    /// A migration is done. Those that are redone in one transaction stay so only if all of them
    /// succeed.
    Finished(Done),
}

/// The session that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The session's server process; `select pg_terminate_backend(pid)` ends it.
    pub pid: i32,
    /// The session's `application_name`.
    pub application_name: Option<String>,
    /// The role that the session has logged in as.
    pub user: Option<String>,
    /// The client's address, if the server shows it to this role.
    pub address: Option<String>,
    /// When the session connected, in UTC, if the server shows it to this role. A migrator takes the lock
    /// as soon as it has connected.
    pub since: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        if let Some(name) = &self.application_name {
            write!(f, " ({name})")?;
        }
        if let Some(user) = &self.user {
            write!(f, " of {user}")?;
        }
        if let Some(address) = &self.address {
            write!(f, " from {address}")?;
        }
        match &self.since {
            Some(since) => write!(f, ", there since {since}"),
            None => Ok(()),
        }
    }
}

/// A migration, and whether it is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Listed {
    /// The migration's name, that is its folder's; its version if it is [`Unknown`](State::Unknown).
    pub name: String,
    /// The migration's version: its name up to the first `_`, without dashes.
    pub version: String,
    /// Whether the migration is applied.
    pub state: State,
}

/// Whether a migration is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The migration is not applied.
    Pending,
    /// The migration is applied.
    #[non_exhaustive]
    Applied {
        /// When the migration was applied, in the time zone of the session that applied it.
        run_on: String,
        /// Whether its `up.sql` was edited since. Always `false` for a migration that the `diesel` CLI has
        /// applied, as no checksum is known.
        edited: bool,
    },
    /// The migration is applied, but not among the migrator's: a newer release has applied it, or its folder
    /// is gone.
    #[non_exhaustive]
    Unknown {
        /// When the migration was applied, in the time zone of the session that applied it.
        run_on: String,
    },
}
