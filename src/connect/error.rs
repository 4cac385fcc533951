//! [`ConnectError`]: why a connect failed, and whether it is worth a retry.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::diagnosis::{Diagnosis, steps};
use super::failure::Failure;
use super::kind::{ConnectErrorKind, RetryClass};
use super::setup::SetupError;
use crate::util::error_chain::chain;

/// A connection could not be made.
///
/// `Display` has the server's own words if it gave a reason, else the step that failed, and what to do; never the
/// password. What made that step fail is the `source()`. Debug has all of it in one line, as has [`reason`](Self::reason)
/// without what to do.
#[derive(Clone)]
pub struct ConnectError(Box<Details>);

/// Boxed: an error is rare, and every result has room for it.
#[derive(Clone)]
struct Details {
    diagnosis: &'static Diagnosis,
    retry_class: RetryClass,
    failure: Option<Failure>,
    budget: Duration,
    attempts: u32,
    elapsed: Duration,
    /// If it is from memory: when the next connect is due.
    due_in: Option<Duration>,
}

impl ConnectError {
    pub(super) fn new(failure: Failure, attempts: u32, elapsed: Duration) -> Self {
        Self(Box::new(Details {
            diagnosis: failure.diagnosis,
            retry_class: failure.diagnosis.kind().retry_class(),
            failure: Some(failure),
            budget: Duration::ZERO,
            attempts,
            elapsed,
            due_in: None,
        }))
    }

    pub(super) fn timed_out(
        last: Option<Failure>,
        budget: Duration,
        attempts: u32,
        elapsed: Duration,
    ) -> Self {
        Self(Box::new(Details {
            diagnosis: &steps::TIMED_OUT,
            retry_class: RetryClass::Patient,
            failure: last,
            budget,
            attempts,
            elapsed,
            due_in: None,
        }))
    }

    /// One step of a single attempt had no answer within `limit`.
    pub(super) fn late(step: &'static Diagnosis, limit: Duration, elapsed: Duration) -> Self {
        let mut late = Self::timed_out(None, limit, 1, elapsed);
        late.0.diagnosis = step;
        late
    }

    /// The server's proxy has refused, in these words, before a statement ran.
    #[cfg(feature = "http")]
    pub(crate) fn of_proxy(message: String) -> Self {
        let failure = Failure::of_words(Diagnosis::of_words(&message, None), message);
        Self::new(failure, 1, Duration::ZERO)
    }

    /// The login succeeded, and the first statement behind it failed with this error of the server's.
    pub(crate) fn of_server_error(message: String, sqlstate: Option<&str>) -> Self {
        let failure = Failure::of_server_error(message, sqlstate);
        Self::new(failure, 1, Duration::ZERO)
    }

    /// The session could not be set up.
    pub(crate) fn of_setup(error: SetupError) -> Self {
        Self::new(Failure::setup(error), 1, Duration::ZERO)
    }

    /// Returns the class of the failure.
    pub fn kind(&self) -> ConnectErrorKind {
        self.0.diagnosis.kind()
    }

    /// Returns the meaning of the failure, and what to do.
    pub fn diagnosis(&self) -> &'static Diagnosis {
        self.0.diagnosis
    }

    /// Returns why there is no connection, in the server's own words if it gave a reason, else with the causes, without
    /// what to do.
    pub fn reason(&self) -> String {
        match (self.kind(), &self.0.failure) {
            (ConnectErrorKind::TimedOut, Some(last)) => {
                format!("{}: {}", self.words(), chain(last))
            }
            (_, Some(failure)) => failure.reason(),
            (_, None) => self.words(),
        }
    }

    /// Returns the error's own words, without what to do.
    fn words(&self) -> String {
        match (self.kind(), &self.0.failure) {
            (ConnectErrorKind::TimedOut, Some(_)) => {
                let budget = self.0.budget;
                format!("no connection within {budget:?}, and the last attempt failed")
            }
            (_, Some(failure)) => failure.to_string(),
            (_, None) => format!("no connection within {:?}", self.0.budget),
        }
    }

    /// Returns the error that the server sent, with all of its fields, if it sent one.
    pub fn server_error(&self) -> Option<&DbError> {
        self.0.failure.as_ref()?.server.as_deref()
    }

    /// Returns the server's SQLSTATE, if it sent one. Neon's proxy sends `XX000` for every error, so go by
    /// [`kind`](Self::kind).
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.failure.as_ref()?.code.as_ref().map(SqlState::code)
    }

    /// Returns whether the same attempt may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.0.retry_class != RetryClass::Final
    }

    /// Returns for how long a manager may answer with this from memory, if it does so for `longest` at most: the server,
    /// or a check of its certificate, has refused the connection, and is likely to refuse the next one.
    pub(crate) fn holds_for(&self, longest: Duration) -> Option<Duration> {
        match self.0.retry_class {
            RetryClass::Final => Some(longest),
            RetryClass::Brief => Some(longest.min(MAY_PASS)),
            RetryClass::Restart | RetryClass::Patient => None,
        }
    }

    /// Returns the error of a connect that was not made: the next one is due then.
    pub(crate) fn to_remembered(&self, due_in: Duration) -> Self {
        let mut remembered = self.clone();
        remembered.0.due_in = Some(due_in);
        remembered
    }

    /// Returns how many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns how long the attempts took together.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// Returns whether a caller who has `waited` so long should wait for the next connect.
    pub(crate) fn is_worth_waiting_for(&self, waited: Duration) -> bool {
        waited < self.retry_budget(Duration::MAX)
    }

    /// Returns the part of `budget` in which to retry.
    pub(crate) fn retry_budget(&self, budget: Duration) -> Duration {
        match self.0.retry_class {
            RetryClass::Final => Duration::ZERO,
            RetryClass::Brief => BRIEF.min(budget),
            RetryClass::Restart => RESTART.min(budget),
            RetryClass::Patient => budget,
        }
    }

    /// Returns the error of a server that was reached before: its host is not misspelt, so it will be back.
    pub(super) fn of_known_server(mut self) -> Self {
        if self.0.retry_class == RetryClass::Restart {
            self.0.retry_class = RetryClass::Patient;
        }
        self
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())?;
        if self.0.attempts > 1 {
            write!(f, " ({} attempts)", self.0.attempts)?;
        }
        if let Some(due_in) = self.0.due_in {
            let seconds = due_in.as_secs() + 1;
            write!(
                f,
                " (from memory, the server is asked again in {seconds} s)"
            )?;
        }
        match self.kind() {
            // The first passes by itself; of the second only its own words are known.
            ConnectErrorKind::Unavailable | ConnectErrorKind::Other => Ok(()),
            _ => write!(f, "; {}", self.0.diagnosis.hint()),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let failure = self.0.failure.as_ref()?;
        match self.kind() {
            ConnectErrorKind::TimedOut => Some(failure),
            _ => failure.source(),
        }
    }
}

const BRIEF: Duration = Duration::from_secs(1);

/// A refusal that may pass by itself is remembered for no longer: a quota's, or that of a server that fails over.
const MAY_PASS: Duration = Duration::from_secs(10);

/// A restarted server is back by then, as a rule.
const RESTART: Duration = Duration::from_secs(3);

crate::util::debug_is_chain!(ConnectError);

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::setup::TargetMismatch;
    use super::*;
    use crate::transport::{Address, DialError};
    use crate::util::error_chain::assert_each_said_once;

    #[test]
    fn an_error_leaves_the_words_of_its_cause_to_its_source() {
        let refused = || {
            Failure::from(DialError::Connect {
                address: Address::Tcp("10.0.0.1:5432".parse().unwrap()),
                source: io::Error::other("refused"),
            })
        };
        let second = Duration::from_secs(1);
        let timed_out = ConnectError::timed_out(Some(refused()), second, 2, second);
        assert!(
            timed_out
                .to_string()
                .starts_with("no connection within 1s, and the last attempt")
        );
        let story = "cannot connect to 10.0.0.1:5432: refused";
        for (error, causes) in [
            (ConnectError::new(refused(), 1, second), 1),
            (timed_out, 2),
            (ConnectError::timed_out(None, second, 2, second), 0),
            (
                ConnectError::new(TargetMismatch::ReadOnly.into(), 1, second),
                0,
            ),
        ] {
            assert_each_said_once(&error);
            let mut sources = 0;
            let mut next = error.source();
            while let Some(cause) = next {
                (sources, next) = (sources + 1, cause.source());
            }
            assert_eq!(sources, causes, "{error:?}");
            assert!(causes == 0 || error.reason().ends_with(story), "{error:?}");
            assert!(
                causes == 0 || format!("{error:?}").ends_with("refused"),
                "{error:?}"
            );
        }
    }
}
