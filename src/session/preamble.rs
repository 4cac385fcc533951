//! [`Preamble`]: commands that ride in front of the next request, such as BEGIN.

use std::borrow::Cow;

use crate::protocol::ServerError;

/// What has to run in front of the next request.
#[derive(Debug)]
pub(super) enum Preamble {
    Nothing,
    Pending(Vec<Command>),
    /// BEGIN has failed.
    Refused,
}

/// A command that rides in front of a request.
pub(crate) type Command = Cow<'static, str>;

impl Preamble {
    /// What is to ride in front of the next request.
    pub(super) fn pending(&self) -> &[Command] {
        match self {
            Self::Pending(commands) => commands,
            _ => &[],
        }
    }

    /// Sends off what is pending.
    pub(super) fn take(&mut self) -> Vec<Command> {
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
