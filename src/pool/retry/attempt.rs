//! The loops that do work until it succeeds, or must not be done again.

use diesel::result::Error as DieselError;
use diesel_async::TransactionManager;
use tokio::time::{Instant, sleep};

use super::decision::{Progress, RetryBudget, may_repeat};
use super::work::{DatabaseFailure, Work};
use crate::connect::Establish;
use crate::pool::Pool;
use crate::pool::checkout::PooledConnection;
use crate::pool::error::PoolError;
use crate::session::TransactionMonitor;

/// The failure of one attempt.
struct Failed<E> {
    error: E,
    may_repeat: bool,
}

pub(super) async fn run<C, T, E, F>(pool: &Pool<C>, idempotent: bool, work: F) -> Result<T, E>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<PoolError> + DatabaseFailure + Send,
{
    let mut pauses = Pauses::new(pool);
    loop {
        let mut connection = pool.get().await?;
        let Failed { error, may_repeat } = match run_once(&mut connection, idempotent, &work).await
        {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        drop(connection);
        if !may_repeat || !pauses.pause().await {
            return Err(error);
        }
    }
}

pub(super) async fn transaction<C, T, E, F>(
    pool: &Pool<C>,
    idempotent: bool,
    work: F,
) -> Result<T, E>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<PoolError> + From<DieselError> + DatabaseFailure + Send,
{
    let mut pauses = Pauses::new(pool);
    loop {
        let mut connection = pool.get().await?;
        // Guarded, so that the work may abandon a statement and go on.
        let guard = TransactionMonitor::new(&connection.entry().session().status).begin();
        let attempted = transact_once(&mut connection, idempotent, &work).await;
        guard.end();
        let Failed { error, may_repeat } = match attempted {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        drop(connection);
        if !may_repeat || !pauses.pause().await {
            return Err(error);
        }
    }
}

async fn run_once<C, T, E, F>(
    connection: &mut PooledConnection<'_, C>,
    idempotent: bool,
    work: &F,
) -> Result<T, Failed<E>>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: DatabaseFailure + Send,
{
    let counts = |connection: &PooledConnection<'_, C>| {
        let status = &connection.entry().session().status;
        (status.requests(), status.responses())
    };
    let (requests, responses) = counts(connection);
    let worked = work(&mut **connection).await;
    let progress = match counts(connection) {
        (now, _) if now == requests => Progress::NothingSent,
        (_, now) if now == responses => Progress::NothingAnswered,
        _ => Progress::StatementsSent,
    };
    worked.map_err(|error| failed(error, progress, idempotent))
}

async fn transact_once<C, T, E, F>(
    connection: &mut PooledConnection<'_, C>,
    idempotent: bool,
    work: &F,
) -> Result<T, Failed<E>>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<DieselError> + DatabaseFailure + Send,
{
    if let Err(error) = C::TransactionManager::begin_transaction(&mut **connection).await {
        return Err(failed_by_diesel(error, Progress::InTransaction, idempotent));
    }
    let ends = Ends::of(connection);
    let worked = work(&mut **connection).await;
    let may_have_ended = ends.may_have_grown(connection);
    let progress = |progress| match may_have_ended {
        true => Progress::TransactionEnded,
        false => progress,
    };
    match worked {
        Ok(done) => match C::TransactionManager::commit_transaction(&mut **connection).await {
            Ok(()) => Ok(done),
            Err(error) => {
                let progress = progress(Progress::CommitSent);
                Err(failed_by_diesel(error, progress, idempotent))
            }
        },
        Err(error) => {
            // If this fails, the pool closes the connection, and the server rolls back.
            let _ = C::TransactionManager::rollback_transaction(&mut **connection).await;
            Err(failed(error, progress(Progress::InTransaction), idempotent))
        }
    }
}

/// The number of transactions that have ended on a connection.
struct Ends {
    reported: u64,
    possible: u64,
}

impl Ends {
    fn of<C: Establish>(connection: &PooledConnection<'_, C>) -> Self {
        let status = &connection.entry().session().status;
        Self {
            reported: status.transaction_ends(),
            possible: status.ends.count(),
        }
    }

    /// Returns whether a transaction has ended since, or may have by a statement whose response is missing.
    fn may_have_grown<C: Establish>(&self, connection: &PooledConnection<'_, C>) -> bool {
        let now = Self::of(connection);
        let status = &connection.entry().session().status;
        now.reported != self.reported
            || (now.possible != self.possible && status.may_miss_response())
    }
}

fn failed<E: DatabaseFailure>(error: E, progress: Progress, idempotent: bool) -> Failed<E> {
    let database_error = error.database_error();
    let may_repeat = database_error.is_some_and(|error| may_repeat(error, progress, idempotent));
    Failed { error, may_repeat }
}

/// Decides before the error becomes the caller's, who may not find it there any more.
fn failed_by_diesel<E>(error: DieselError, progress: Progress, idempotent: bool) -> Failed<E>
where
    E: From<DieselError>,
{
    Failed {
        may_repeat: may_repeat(&error, progress, idempotent),
        error: error.into(),
    }
}

/// The pauses between attempts.
struct Pauses {
    began: Instant,
    budget: RetryBudget,
}

impl Pauses {
    fn new<C: Establish>(pool: &Pool<C>) -> Self {
        Self {
            began: Instant::now(),
            budget: RetryBudget::new(pool.policy()),
        }
    }

    /// Waits before another attempt, or returns that there must be none.
    async fn pause(&mut self) -> bool {
        let Some(pause) = self.budget.next_pause(self.began.elapsed()) else {
            return false;
        };
        tracing::debug!(pause = ?pause, "trying again");
        sleep(pause).await;
        true
    }
}
