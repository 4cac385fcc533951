//! [`Opening`]: commands that ride in front of the next request, such as BEGIN.

use std::borrow::Cow;

use super::error::ServerError;
use super::link::Link;

/// What has to run in front of the next request.
#[derive(Debug)]
pub(super) enum Opening {
    Nothing,
    Pending(Vec<Command>),
    /// BEGIN has failed.
    Refused,
}

/// A command that rides in front of a request.
pub(crate) type Command = Cow<'static, str>;

impl Opening {
    /// What is to ride in front of the next request.
    pub(super) fn pending(&self) -> &[Command] {
        match self {
            Self::Pending(commands) => commands,
            _ => &[],
        }
    }

    /// Sends off what is pending.
    pub(super) fn fly(&mut self) -> Vec<Command> {
        match self {
            Self::Pending(commands) => {
                let commands = std::mem::take(commands);
                *self = Self::Nothing;
                commands
            }
            _ => Vec::new(),
        }
    }
}

impl Link {
    /// Has `command` run in front of the next request, in the same group.
    pub(crate) fn open(&self, command: Command) {
        let mut engine = self.lock();
        match &mut engine.opening {
            Opening::Pending(commands) => commands.push(command),
            opening => *opening = Opening::Pending(vec![command]),
        }
    }

    /// Has the transaction that `answer` has begun, and that has failed with its first statement,
    /// begin anew. False where something else ran in it.
    pub(crate) fn reopen(&self, begun: Vec<Command>) -> bool {
        if !self.observed().in_failed_transaction() {
            return true;
        }
        if !begun.iter().any(is_begin) {
            return false;
        }
        let mut commands = vec![Command::from("ROLLBACK")];
        commands.extend(begun);
        self.lock().opening = Opening::Pending(commands);
        true
    }

    /// How many commands of [`open`](Self::open) have not been sent yet.
    pub(crate) fn unopened(&self) -> usize {
        match &self.lock().opening {
            Opening::Pending(commands) => commands.len(),
            _ => 0,
        }
    }

    /// Forgets the last command of [`open`](Self::open), if it has not been sent.
    pub(crate) fn unopen(&self) -> bool {
        let mut engine = self.lock();
        let Opening::Pending(commands) = &mut engine.opening else {
            return false;
        };
        commands.pop();
        if commands.is_empty() {
            engine.opening = Opening::Nothing;
        }
        true
    }

    /// Forgets a transaction that was abandoned, and whatever of it has not been sent.
    pub(crate) fn forget_transaction(&self) {
        self.lock().opening = Opening::Nothing;
        self.observed().forget_abandoned_transaction();
    }

    /// Whether the transaction that was to be opened could not be.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.lock().opening, Opening::Refused)
    }

    /// The transaction that could not be opened is over.
    pub(crate) fn forgive(&self) {
        let mut engine = self.lock();
        if matches!(engine.opening, Opening::Refused) {
            engine.opening = Opening::Nothing;
        }
    }
}

/// The commands as what stands in front of other SQL.
pub(super) fn in_front(commands: &[Command]) -> String {
    commands
        .iter()
        .flat_map(|command| [&**command, ";"])
        .collect()
}

pub(super) fn is_begin(command: &Command) -> bool {
    command.starts_with("BEGIN")
}

/// What the server would say to a statement in a transaction that has failed.
pub(super) fn refusal() -> ServerError {
    ServerError::local(
        "25P02",
        "the transaction could not begin, statements are refused until it is rolled back",
    )
}
