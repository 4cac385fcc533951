//! [`Verdict`]: what is known of a statement that is ended because its server was silent.

use std::time::Duration;

use crate::protocol::ServerError;

/// What is known of a statement whose server was silent for longer than the policy's `silence_threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The process that ran it is gone.
    ProcessGone,
    /// The process had nothing to do since before the statement was sent, and was ended.
    NeverArrived,
    /// The process had nothing to do inside of the transaction, and was ended.
    RolledBack,
    /// The process has had something to do since the statement was sent, and has finished.
    AnswerLost,
    /// The process has nothing to do.
    ProcessIdle,
    /// The connections that were open together with this one are dead.
    SiblingsDead,
}

impl Verdict {
    /// Returns the error that the statement ends with.
    pub(super) fn error(self, silence: Duration) -> ServerError {
        let (code, routine, words) = match self {
            Self::ProcessGone => (
                LOST,
                ServerError::LOST_IN_SILENCE,
                "lost: the server process is gone; the statement may have run",
            ),
            Self::NeverArrived => (
                LOST,
                ServerError::UNDELIVERED,
                "never arrived: the server process was idle since before the statement was sent, and was ended; it is \
                 safe to do it again",
            ),
            Self::RolledBack => (
                "40000",
                ServerError::LOST_IN_SILENCE,
                "lost: the server process was idle inside of the transaction, and was ended; the transaction is \
                 rolled back",
            ),
            Self::AnswerLost => (
                LOST,
                ServerError::LOST_IN_SILENCE,
                "the statement ran, and its answer is lost: the server process is idle again",
            ),
            Self::ProcessIdle => (
                LOST,
                ServerError::LOST_IN_SILENCE,
                "lost: the server process is idle; the statement may have run",
            ),
            Self::SiblingsDead => (
                LOST,
                ServerError::LOST_IN_SILENCE,
                "lost: the connections that were open with this one are dead, and a new one is not; the statement may \
                 have run",
            ),
        };
        let message = format!(
            "{words} (nothing came for {:.1} s: silence_threshold)",
            silence.as_secs_f64()
        );
        ServerError {
            routine: Some(routine.to_owned()),
            ..ServerError::local(code, &message)
        }
    }
}

const LOST: &str = "08006";
