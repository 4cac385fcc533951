//! Whether work may be done again after a failure, and when.

use std::time::Duration;

use diesel::result::Error as DieselError;

use crate::policy::Policy;
use crate::query::DatabaseErrorExt;
use crate::util::backoff;

/// How far an attempt came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing was sent.
    NothingSent,
    /// Statements were sent, and none was answered.
    NothingAnswered,
    /// Statements were sent, each of which commits by itself.
    StatementsSent,
    /// A transaction was open, and is rolled back.
    InTransaction,
    /// COMMIT was sent.
    CommitSent,
    /// The work has ended its transaction by itself, or may have, so that something may be left behind.
    TransactionEnded,
}

/// Returns whether work that failed with `error` may be done again without doing anything twice, or with permission
/// to: if it is `idempotent`.
pub(super) fn may_repeat(error: &DieselError, progress: Progress, idempotent: bool) -> bool {
    if error.connect_error().is_some() {
        // The pool has connected again for as long as it was worth it.
        return false;
    }
    match progress {
        Progress::NothingSent => is_retryable(error),
        // All that was sent is at most the statement that never arrived.
        Progress::NothingAnswered if error.is_undelivered() => true,
        // The caller would not wait for so long, and the server may be at it still.
        Progress::InTransaction if error.is_response_timeout() => idempotent,
        Progress::InTransaction => is_retryable(error),
        Progress::NothingAnswered | Progress::StatementsSent | Progress::TransactionEnded => {
            idempotent && is_retryable(error)
        }
        Progress::CommitSent if error.is_undelivered() => true,
        Progress::CommitSent => is_rolled_back(error) || (idempotent && is_retryable(error)),
    }
}

/// Returns whether another attempt may succeed. After `NOWAIT` or `lock_timeout` it might, but the caller asked to be
/// told at once.
fn is_retryable(error: &DieselError) -> bool {
    error.is_transient() && error.sqlstate() != Some(LOCK_NOT_AVAILABLE)
}

/// Returns whether a COMMIT did not take place: class 40 says so, but for `statement_completion_unknown`. A connection
/// that is lost has it only if the pool has seen to it that its transaction is rolled back.
fn is_rolled_back(error: &DieselError) -> bool {
    let code = error.sqlstate().unwrap_or_default();
    match error.is_connection_lost() {
        true => code == TRANSACTION_ROLLBACK,
        false => code.starts_with("40") && code != STATEMENT_COMPLETION_UNKNOWN,
    }
}

const LOCK_NOT_AVAILABLE: &str = "55P03";
const STATEMENT_COMPLETION_UNKNOWN: &str = "40003";
const TRANSACTION_ROLLBACK: &str = "40000";

/// The attempts that are left of the policy's `retry_attempts` and `retry_budget`.
#[derive(Debug)]
pub(super) struct RetryBudget {
    attempts: u32,
    max_attempts: u32,
    budget: Duration,
}

impl RetryBudget {
    /// Begins with the first attempt.
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            attempts: 1,
            max_attempts: policy.retry_attempts(),
            budget: policy.retry_budget(),
        }
    }

    /// Takes another attempt, and returns how long to wait before it; `None` if there must be none.
    pub(super) fn next_pause(&mut self, elapsed: Duration) -> Option<Duration> {
        let left = self.budget.saturating_sub(elapsed);
        if self.attempts >= self.max_attempts || left.is_zero() {
            return None;
        }
        self.attempts += 1;
        Some(backoff::pause(self.attempts - 2, left))
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::Progress::{
        CommitSent, InTransaction, NothingAnswered, NothingSent, StatementsSent, TransactionEnded,
    };
    use super::*;
    use crate::protocol::ServerError;
    use crate::session::Failure;

    const ALL: [Progress; 6] = [
        NothingSent,
        NothingAnswered,
        StatementsSent,
        InTransaction,
        CommitSent,
        TransactionEnded,
    ];

    fn server(sqlstate: &str) -> DieselError {
        Failure::Server(Box::new(ServerError::local(sqlstate, "a failure"))).into()
    }

    fn lost() -> DieselError {
        let nothing = Box::new("closed".to_owned());
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, nothing)
    }

    fn silent() -> DieselError {
        Failure::Lost(Box::new(ServerError {
            routine: Some(ServerError::RESPONSE_TIMEOUT.to_owned()),
            ..ServerError::local("08006", "no response")
        }))
        .into()
    }

    fn in_silence(code: &str, routine: &str) -> DieselError {
        Failure::Lost(Box::new(ServerError {
            routine: Some(routine.to_owned()),
            ..ServerError::local(code, "nothing came")
        }))
        .into()
    }

    #[test]
    fn work_is_repeated_only_if_nothing_can_happen_twice_or_it_is_idempotent() {
        // Each error with the progress after which work is repeated, and that after which idempotent work is.
        let cases: [(DieselError, &[Progress], &[Progress]); 11] = [
            (lost(), &[NothingSent, InTransaction], &ALL),
            (silent(), &[NothingSent], &ALL),
            (
                in_silence("08006", ServerError::LOST_IN_SILENCE),
                &[NothingSent, InTransaction],
                &ALL,
            ),
            (
                in_silence("08006", ServerError::UNDELIVERED),
                &[NothingSent, NothingAnswered, InTransaction, CommitSent],
                &ALL,
            ),
            (
                in_silence("40000", ServerError::LOST_IN_SILENCE),
                &[NothingSent, InTransaction, CommitSent],
                &ALL,
            ),
            (
                server("40001"),
                &[NothingSent, InTransaction, CommitSent],
                &ALL,
            ),
            (
                server("40P01"),
                &[NothingSent, InTransaction, CommitSent],
                &ALL,
            ),
            // Whether the COMMIT took place is not known.
            (server("40003"), &[], &[]),
            (server("53300"), &[NothingSent, InTransaction], &ALL),
            // The caller would not wait for the lock.
            (server("55P03"), &[], &[]),
            (server("23505"), &[], &[]),
        ];
        for (error, safe, idempotent) in cases {
            for progress in ALL {
                for (permitted, repeats) in [(false, safe), (true, idempotent)] {
                    assert_eq!(
                        may_repeat(&error, progress, permitted),
                        repeats.contains(&progress),
                        "{error}, {:?}, {progress:?}, idempotent: {permitted}",
                        error.sqlstate()
                    );
                }
            }
        }
    }

    #[test]
    fn attempts_and_their_time_are_bounded() {
        let second = Duration::from_secs(1);
        let budget = |attempts: u32, budget: Duration| {
            let policy = Policy::builder().retry_attempts(attempts);
            RetryBudget::new(&policy.retry_budget(budget).build().unwrap())
        };
        let mut of_three = budget(3, second);
        assert!(of_three.next_pause(Duration::ZERO).is_some());
        assert!(of_three.next_pause(Duration::ZERO).is_some());
        assert_eq!(of_three.next_pause(Duration::ZERO), None);
        assert_eq!(budget(1, second).next_pause(Duration::ZERO), None);
        assert_eq!(budget(3, Duration::ZERO).next_pause(Duration::ZERO), None);
        assert_eq!(budget(3, second).next_pause(second), None);
        let almost = second - Duration::from_millis(10);
        let pause = budget(3, second).next_pause(almost).unwrap();
        assert!(pause <= Duration::from_millis(5), "{pause:?}");
    }
}
