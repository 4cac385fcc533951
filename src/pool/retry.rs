//! [`Pool::run`] and [`Pool::transaction`]: work that is done again where that is safe.

use std::fmt;
use std::time::Duration;

use diesel::result::Error as DieselError;
use diesel_async::TransactionManager;
use tokio::time::{Instant, sleep};

use super::Pool;
use super::checkout::PooledConnection;
use super::error::PoolError;
use crate::connect::Establish;
use crate::connection::{is_connection_lost, is_transient, sqlstate};
use crate::session::TransactionMonitor;
use crate::util::backoff;

impl<C: Establish> Pool<C> {
    /// Gets a connection and does `work` with it, again on another one where the first turned out dead
    /// before anything was sent on it.
    ///
    /// For anything else `work` is done once: its statements commit one by one, and whether one that
    /// got no answer has run, nobody knows. Where doing it twice does no harm, say so with
    /// [`idempotent`](Self::idempotent); where several statements belong together, use
    /// [`transaction`](Self::transaction).
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub fn run<'a, T, E, F>(&'a self, work: F) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + DatabaseFailure + Send + 'a,
    {
        run(self, false, work)
    }

    /// Does `work` in a transaction, and all of it again, on another connection, after a failure that
    /// left nothing behind: a serialization failure, a deadlock, a connection that was lost before
    /// COMMIT was sent.
    ///
    /// It is not done again when the connection is lost while COMMIT is under way, since the
    /// transaction may have been committed, unless it is declared [`idempotent`](Self::idempotent); nor when
    /// the work has ended the transaction by itself, with a `COMMIT` of its own SQL for example, or may have
    /// since the answer to that was lost. Nor is it
    /// after `NOWAIT` or `lock_timeout`: who would not wait for a lock is told so at once.
    ///
    /// ```no_run
    /// # use diesel::prelude::*;
    /// # use diesel_async::RunQueryDsl;
    /// # use diesel_neon::{Pool, RetryError};
    /// # diesel::table! { accounts { id -> Integer, balance -> Integer } }
    /// # async fn transfer(pool: &Pool) -> Result<(), RetryError> {
    /// pool.transaction(async |connection| {
    ///     for (account, amount) in [(1, -10), (2, 10)] {
    ///         diesel::update(accounts::table.find(account))
    ///             .set(accounts::balance.eq(accounts::balance + amount))
    ///             .execute(connection)
    ///             .await?;
    ///     }
    ///     Ok::<_, RetryError>(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub fn transaction<'a, T, E, F>(
        &'a self,
        work: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + From<DieselError> + DatabaseFailure + Send + 'a,
    {
        transaction(self, false, work)
    }

    /// Declares that work may be done twice without harm, so that it is also done again when it is not
    /// known whether the first time counted.
    ///
    /// Reads are idempotent, and so are writes that carry a key under which the database keeps them
    /// once: `INSERT … ON CONFLICT DO NOTHING` on a unique column that the caller has chosen the value of. The
    /// feature `books` shows the latter, in `books::insert_once`.
    pub fn idempotent(&self) -> Idempotent<'_, C> {
        Idempotent(self)
    }
}

/// A [`Pool`] for work that may be done twice; see [`Pool::idempotent`].
#[derive(Clone, Copy)]
pub struct Idempotent<'a, C: Establish>(&'a Pool<C>);

impl<'a, C: Establish> Idempotent<'a, C> {
    /// Like [`Pool::run`], and again after any transient failure.
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub fn run<T, E, F>(self, work: F) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + DatabaseFailure + Send + 'a,
    {
        run(self.0, true, work)
    }

    /// Like [`Pool::transaction`], and again when the connection is lost while COMMIT is under way.
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub fn transaction<T, E, F>(self, work: F) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + From<DieselError> + DatabaseFailure + Send + 'a,
    {
        transaction(self.0, true, work)
    }
}

impl<C: Establish> fmt::Debug for Idempotent<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Idempotent").field(self.0).finish()
    }
}

/// An async closure whose future can be said to be `Send`, which `AsyncFn` alone cannot say yet.
///
/// Implemented for every async closure that only borrows what it captures; where the compiler says that
/// one does not implement `Fn`, clone inside of it what was moved into it. diesel-async does the
/// same for its transactions.
pub trait Work<A, R>: AsyncFn(A) -> R + Fn(A) -> <Self as Work<A, R>>::Future {
    /// What the closure returns.
    type Future: Future<Output = R>;
}

impl<F, A, R, Fut> Work<A, R> for F
where
    F: AsyncFn(A) -> R + Fn(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Future = Fut;
}

/// An error in which [`Pool::run`] and [`Pool::transaction`] look for what the database said.
pub trait DatabaseFailure {
    /// The database's error, if that is what it is.
    fn database_error(&self) -> Option<&DieselError>;
}

impl DatabaseFailure for DieselError {
    fn database_error(&self) -> Option<&DieselError> {
        Some(self)
    }
}

impl DatabaseFailure for RetryError {
    fn database_error(&self) -> Option<&DieselError> {
        match self {
            Self::Pool(_) => None,
            Self::Query(error) => Some(error),
        }
    }
}

/// What [`Pool::run`] and [`Pool::transaction`] fail with, where you have no error type of your own.
///
/// Your own has to implement [`DatabaseFailure`] and `From<PoolError>`, for transactions also
/// `From<diesel::result::Error>`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// There is no connection.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A statement failed.
    #[error(transparent)]
    Query(#[from] DieselError),
}

async fn run<C, T, E, F>(pool: &Pool<C>, idempotent: bool, work: F) -> Result<T, E>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<PoolError> + DatabaseFailure + Send,
{
    let mut patience = Patience::new(pool);
    loop {
        let mut connection = pool.get().await?;
        let sent = connection.entry().session().status.requests();
        let error = match work(&mut connection).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let untouched = connection.entry().session().status.requests() == sent;
        let again = match error.database_error() {
            Some(error) => may_be_repeated(error) && (idempotent || untouched),
            None => false,
        };
        drop(connection);
        if !again || !patience.pause().await {
            return Err(error);
        }
    }
}

async fn transaction<C, T, E, F>(pool: &Pool<C>, idempotent: bool, work: F) -> Result<T, E>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<PoolError> + From<DieselError> + DatabaseFailure + Send,
{
    let mut patience = Patience::new(pool);
    loop {
        let mut connection = pool.get().await?;
        // Known to be under way, so that work may give up a statement and go on.
        let unfinished = TransactionMonitor::new(&connection.entry().session().status).begin();
        let attempted = attempt(&mut connection, &work).await;
        unfinished.end();
        let Undone { failure, ended } = match attempted {
            Ok(done) => return Ok(done),
            Err(undone) => undone,
        };
        let (error, again) = match failure {
            Failure::BeforeCommit(error) => {
                let again = error.database_error().is_some_and(may_be_repeated);
                (error, again && (idempotent || !ended))
            }
            Failure::ByCommit(error) => {
                let again =
                    (is_rolled_back(&error) && !ended) || (idempotent && may_be_repeated(&error));
                (error.into(), again)
            }
        };
        drop(connection);
        if !again || !patience.pause().await {
            return Err(error);
        }
    }
}

struct Undone<E> {
    failure: Failure<E>,
    /// Whether the work has ended the transaction by itself, so that something of it may be left behind.
    ended: bool,
}

/// Where a transaction failed decides whether it may be done again.
enum Failure<E> {
    BeforeCommit(E),
    ByCommit(DieselError),
}

async fn attempt<C, T, E, F>(
    connection: &mut PooledConnection<'_, C>,
    work: &F,
) -> Result<T, Undone<E>>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<DieselError> + Send,
{
    let begun = C::TransactionManager::begin_transaction(&mut **connection).await;
    begun.map_err(|error| Undone {
        failure: Failure::BeforeCommit(error.into()),
        ended: false,
    })?;
    let ends = Ends::of(connection);
    let worked = work(&mut **connection).await;
    let ended = ends.may_have_come(connection);
    let failure = match worked {
        Ok(done) => match C::TransactionManager::commit_transaction(&mut **connection).await {
            Ok(()) => return Ok(done),
            Err(error) => Failure::ByCommit(error),
        },
        Err(error) => {
            // If it fails the pool closes the connection, and the server rolls back.
            let _ = C::TransactionManager::rollback_transaction(&mut **connection).await;
            Failure::BeforeCommit(error)
        }
    };
    Err(Undone { failure, ended })
}

/// The ends of transactions on a connection, as of one moment.
struct Ends {
    told: u64,
    possible: u64,
}

impl Ends {
    fn of<C: Establish>(connection: &PooledConnection<'_, C>) -> Self {
        let status = &connection.entry().session().status;
        Self {
            told: status.transaction_ends(),
            possible: status.possible_ends(),
        }
    }

    /// Whether a transaction has ended since, as far as the server has told, or may have by a statement whose answer
    /// is missing.
    fn may_have_come<C: Establish>(&self, connection: &PooledConnection<'_, C>) -> bool {
        let now = Self::of(connection);
        let status = &connection.entry().session().status;
        now.told != self.told || (now.possible != self.possible && status.misses_answer())
    }
}

/// Whether the pool repeats work by itself after `error`. A lock that was not there (`NOWAIT`,
/// `lock_timeout`) is the caller's: to be told at once is what it has asked for.
fn may_be_repeated(error: &DieselError) -> bool {
    is_transient(error) && sqlstate(error) != Some(LOCK_NOT_AVAILABLE)
}

const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Whether the server says that a COMMIT did not take place: class 40, but for
/// `statement_completion_unknown`.
fn is_rolled_back(error: &DieselError) -> bool {
    let code = sqlstate(error).unwrap_or_default();
    !is_connection_lost(error) && code.starts_with("40") && code != "40003"
}

/// How often, how long and with what pauses to try.
struct Patience {
    began: Instant,
    attempts: u32,
    most: u32,
    budget: Duration,
}

impl Patience {
    fn new<C: Establish>(pool: &Pool<C>) -> Self {
        Self {
            began: Instant::now(),
            attempts: 1,
            most: pool.policy().retry_attempts(),
            budget: pool.policy().retry_budget(),
        }
    }

    /// Waits before another attempt, or says that there must be none.
    async fn pause(&mut self) -> bool {
        let left = self.budget.saturating_sub(self.began.elapsed());
        if self.attempts >= self.most || left.is_zero() {
            return false;
        }
        let pause = backoff::pause(self.attempts - 1, left);
        tracing::debug!(attempt = self.attempts, pause = ?pause, "trying again");
        self.attempts += 1;
        sleep(pause).await;
        true
    }
}

crate::util::debug_is_display!(RetryError);
