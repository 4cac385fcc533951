//! [`Preamble`]: commands that ride in front of the next request, such as BEGIN.

use std::borrow::Cow;

use crate::protocol::ServerError;

/// The commands that are to run in front of the next request.
#[derive(Debug)]
pub(super) enum Preamble {
    Empty,
    Pending(Vec<Command>),
    /// BEGIN has failed: no statement may run until the transaction is rolled back.
    Failed,
}

/// A command that rides in front of a request.
pub(crate) type Command = Cow<'static, str>;

/// The commands that rode in front of a request that was sent.
#[derive(Debug, Default)]
pub(crate) struct SentPreamble {
    pub(super) request: u64,
    pub(super) commands: Vec<Command>,
}

impl Preamble {
    /// Returns the commands that are to ride in front of the next request.
    pub(super) fn pending(&self) -> &[Command] {
        match self {
            Self::Pending(commands) => commands,
            _ => &[],
        }
    }

    /// Takes the commands, which ride in front of the request that is being sent.
    pub(super) fn take(&mut self) -> Vec<Command> {
        match self {
            Self::Pending(commands) => {
                let commands = std::mem::take(commands);
                *self = Self::Empty;
                commands
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the commands as SQL, to stand in front of other SQL.
pub(super) fn prefix(commands: &[Command]) -> String {
    commands
        .iter()
        .flat_map(|command| [&**command, ";"])
        .collect()
}

pub(super) fn is_begin(command: &Command) -> bool {
    command.starts_with("BEGIN")
}

/// Returns the error of a statement in a transaction whose BEGIN has failed.
pub(super) fn failed_begin() -> ServerError {
    ServerError::local(
        "25P02",
        "the transaction could not begin, statements are refused until it is rolled back",
    )
}
