//! What the migrator says it has done, and sees.

use std::fmt;
use std::time::Duration;

/// The way that a migration is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Direction {
    /// `up.sql`: it is applied.
    Up,
    /// `down.sql`: it is reverted.
    Down,
}

impl Direction {
    /// The file that holds this direction's SQL.
    pub fn file(self) -> &'static str {
        match self {
            Self::Up => "up.sql",
            Self::Down => "down.sql",
        }
    }
}

/// What a run has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Each migration that was run, in order. Empty where there was nothing to do, for one because
    /// another process has done it.
    pub done: Vec<Done>,
    /// How long the lock was waited for.
    pub waited: Duration,
}

/// A migration that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// The migration's name, that is its folder's.
    pub name: String,
    /// Its version: the name up to the first `_`, without dashes.
    pub version: String,
    /// Which way it was run.
    pub direction: Direction,
    /// How long it took, its commit included.
    pub took: Duration,
}

/// What a run is at; see [`Migrator::on_progress`](super::Migrator::on_progress).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another session holds the lock. Said again only when it passes to another one.
    #[non_exhaustive]
    Waiting {
        /// Which one.
        holder: Holder,
    },
    /// A migration was edited after it was applied: what it does now was not done here.
    #[non_exhaustive]
    Edited {
        /// Its name.
        name: String,
    },
    /// A migration begins.
    #[non_exhaustive]
    Started {
        /// Its name.
        name: String,
        /// Which way it is run.
        direction: Direction,
    },
    /// A migration is done. Those that are redone in one transaction stay so only if all of them
    /// succeed.
    Finished(Done),
}

/// The session that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its server process; `select pg_terminate_backend(pid)` ends it.
    pub pid: i32,
    /// What it calls itself.
    pub application_name: Option<String>,
    /// Who it has logged in as.
    pub user: Option<String>,
    /// Where it comes from, where the server shows it to this user.
    pub address: Option<String>,
    /// When it has connected, in UTC, where the server shows it to this user. A migrator takes the lock
    /// right then.
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The migration's name, that is its folder's; its version where it is
    /// [`Unknown`](State::Unknown).
    pub name: String,
    /// Its version: the name up to the first `_`, without dashes.
    pub version: String,
    /// Whether it is applied.
    pub state: State,
}

/// Whether a migration is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It is not.
    Pending,
    /// It is.
    #[non_exhaustive]
    Applied {
        /// When that was, in the time zone of the session that did it.
        run_on: String,
        /// Whether its `up.sql` is another one now than the one that was applied. Not known, and so
        /// not said, of what the `diesel` CLI has applied.
        edited: bool,
    },
    /// It is, but it is not among those here: a newer release has applied it, or its folder is gone.
    #[non_exhaustive]
    Unknown {
        /// When that was, in the time zone of the session that did it.
        run_on: String,
    },
}
