//! [`Pool::run`] and [`Pool::transaction`]: work that is done again if that is safe.
//!
//! - [`decision`]: when it is safe, and for how long. Pure.
//! - [`attempt`]: the loops around one attempt.
//! - [`work`]: what is done, and with which errors it may fail.

mod attempt;
mod decision;
mod work;

use std::fmt;

use diesel::result::Error as DieselError;

pub use self::work::{DatabaseFailure, RetryError, Work};
use super::Pool;
use super::error::PoolError;
use crate::connect::Establish;

impl<C: Establish> Pool<C> {
    /// Gets a connection and does `work` with it; again on another connection if the first one turns out dead before
    /// anything was sent on it.
    ///
    /// After any other failure, `work` is not done again: its statements commit one by one, and nobody knows whether a
    /// statement without an answer has run. If doing it twice does no harm, say so with
    /// [`idempotent`](Self::idempotent); if several statements belong together, use
    /// [`transaction`](Self::transaction). The policy's `retry_attempts` and `retry_budget` bound the attempts.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub fn run<'a, T, E, F>(&'a self, work: F) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + DatabaseFailure + Send + 'a,
    {
        attempt::run(self, false, work)
    }

    /// Does `work` in a transaction; all of it again, on another connection, after a failure that left nothing behind: a
    /// serialization failure, a deadlock, a connection that was lost before COMMIT was sent.
    ///
    /// Unless it is declared [`idempotent`](Self::idempotent), `work` is not done again if the connection is lost while
    /// COMMIT is under way, since the transaction may have been committed; nor if `work` has ended the transaction by
    /// itself, with a `COMMIT` in its own SQL for example, or may have since the response to that was lost.
    ///
    /// After `NOWAIT` or `lock_timeout`, `work` is never done again: a caller that does not want to wait for a lock is
    /// told so at once. After the policy's [`response_timeout`](crate::PolicyBuilder::response_timeout), it is done again
    /// only if it is declared idempotent: the statement may only be long, and may still be under way. The policy's
    /// `retry_attempts` and `retry_budget` bound the attempts.
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
    /// The error of the last attempt.
    pub fn transaction<'a, T, E, F>(
        &'a self,
        work: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + From<DieselError> + DatabaseFailure + Send + 'a,
    {
        attempt::transaction(self, false, work)
    }

    /// Declares that work may be done twice without harm, so that it is also done again if nobody knows whether the
    /// first time counted.
    ///
    /// Reads are idempotent. So are writes that carry a key under which the database keeps them once: `INSERT … ON
    /// CONFLICT DO NOTHING` on a unique column whose value the caller has chosen. The feature `books` shows the latter,
    /// in `books::insert_once`.
    pub fn idempotent(&self) -> Idempotent<'_, C> {
        Idempotent(self)
    }
}

/// A [`Pool`] for work that may be done twice; see [`Pool::idempotent`].
#[derive(Clone, Copy)]
pub struct Idempotent<'a, C: Establish>(&'a Pool<C>);

impl<'a, C: Establish> Idempotent<'a, C> {
    /// Does `work` like [`Pool::run`], and again after any transient failure.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub fn run<T, E, F>(self, work: F) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + DatabaseFailure + Send + 'a,
    {
        attempt::run(self.0, true, work)
    }

    /// Does `work` like [`Pool::transaction`], and again if the connection is lost while COMMIT is under way.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub fn transaction<T, E, F>(self, work: F) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync + 'a,
        T: Send + 'a,
        E: From<PoolError> + From<DieselError> + DatabaseFailure + Send + 'a,
    {
        attempt::transaction(self.0, true, work)
    }
}

impl<C: Establish> fmt::Debug for Idempotent<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Idempotent").field(self.0).finish()
    }
}
