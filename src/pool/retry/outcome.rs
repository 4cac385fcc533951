//! [`Attempt`]: what one attempt at work has left behind. [`Pauses`]: when the next one begins.

use std::sync::Arc;

use diesel::result::Error as DieselError;
use tokio::time::{Instant, sleep};

use super::decision::{Progress, RetryBudget, may_repeat};
use super::work::DatabaseFailure;
use crate::policy::Policy;
use crate::session::SessionStatus;

/// The failure of one attempt.
pub(crate) struct Failed<E> {
    pub(crate) error: E,
    pub(crate) may_repeat: bool,
}

impl<E> Failed<E> {
    /// Judges the failure of a BEGIN.
    pub(crate) fn to_begin(error: DieselError, idempotent: bool) -> Self
    where
        E: From<DieselError>,
    {
        judge_diesels(error, Progress::InTransaction, idempotent)
    }
}

/// One attempt at work on a connection, and what the session had counted when it began.
pub(crate) struct Attempt {
    status: Arc<SessionStatus>,
    idempotent: bool,
    requests: u64,
    responses: u64,
    transaction_ends: u64,
    possible_ends: u64,
}

/// An attempt whose work is done, and whose transaction has yet to end.
pub(crate) struct Transacted {
    idempotent: bool,
    may_have_ended: bool,
}

impl Attempt {
    pub(crate) fn begin(status: Arc<SessionStatus>, idempotent: bool) -> Self {
        Self {
            idempotent,
            requests: status.requests(),
            responses: status.responses(),
            transaction_ends: status.transaction_ends(),
            possible_ends: status.bounds.ends(),
            status,
        }
    }

    /// Judges the failure of work whose statements commit one by one.
    pub(crate) fn failed<E: DatabaseFailure>(&self, error: E) -> Failed<E> {
        let progress = match &self.status {
            status if status.requests() == self.requests => Progress::NothingSent,
            status if status.responses() == self.responses => Progress::NothingAnswered,
            _ => Progress::StatementsSent,
        };
        judge(error, progress, self.idempotent)
    }

    /// Looks at the transaction once its work is done, and before it is committed or rolled back: the work may have ended
    /// it, by itself or by a statement whose response is missing.
    pub(crate) fn worked_in_transaction(&self) -> Transacted {
        let status = &self.status;
        let may_have_ended = status.transaction_ends() != self.transaction_ends
            || (status.bounds.ends() != self.possible_ends && status.may_miss_response());
        Transacted {
            idempotent: self.idempotent,
            may_have_ended,
        }
    }
}

impl Transacted {
    /// Judges the failure of the work.
    pub(crate) fn failed<E: DatabaseFailure>(&self, error: E) -> Failed<E> {
        judge(
            error,
            self.or_ended(Progress::InTransaction),
            self.idempotent,
        )
    }

    /// Judges the failure of the COMMIT.
    pub(crate) fn failed_to_commit<E: From<DieselError>>(&self, error: DieselError) -> Failed<E> {
        judge_diesels(error, self.or_ended(Progress::CommitSent), self.idempotent)
    }

    fn or_ended(&self, progress: Progress) -> Progress {
        match self.may_have_ended {
            true => Progress::TransactionEnded,
            false => progress,
        }
    }
}

fn judge<E: DatabaseFailure>(error: E, progress: Progress, idempotent: bool) -> Failed<E> {
    let database_error = error.database_error();
    let may_repeat = database_error.is_some_and(|error| may_repeat(error, progress, idempotent));
    Failed { error, may_repeat }
}

/// Decides before the error becomes the caller's, who may not find it there any more.
fn judge_diesels<E>(error: DieselError, progress: Progress, idempotent: bool) -> Failed<E>
where
    E: From<DieselError>,
{
    Failed {
        may_repeat: may_repeat(&error, progress, idempotent),
        error: error.into(),
    }
}

/// The pauses between attempts.
pub(crate) struct Pauses {
    began: Instant,
    budget: RetryBudget,
}

impl Pauses {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self {
            began: Instant::now(),
            budget: RetryBudget::new(policy),
        }
    }

    /// Waits before another attempt, or returns that there must be none.
    pub(crate) async fn pause(&mut self) -> bool {
        let Some(pause) = self.budget.next_pause(self.began.elapsed()) else {
            return false;
        };
        tracing::debug!(pause = ?pause, "trying again");
        sleep(pause).await;
        true
    }
}
