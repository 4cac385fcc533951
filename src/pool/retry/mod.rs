//! [`Retry`]: work that is done again if that is safe.
//!
//! - [`decision`]: when it is safe, and for how long. Pure.
//! - [`attempt`]: the loops around one attempt.
//! - [`outcome`]: what an attempt has left behind, and when the next one begins.
//! - [`work`]: what is done, and with which errors it may fail.

mod attempt;
mod decision;
mod outcome;
mod work;

use std::fmt;

use diesel::result::Error as DieselError;

#[cfg(feature = "blocking")]
pub(crate) use self::outcome::{Attempt, Failed, Pauses};
pub use self::work::{DatabaseFailure, RetryError, Work};
use super::Pool;
use super::error::PoolError;
use crate::connect::Establish;
use crate::connection::Connection;

impl<C: Establish> Pool<C> {
    /// Returns a [`Retry`], whose methods do work again after a failure if that is safe.
    ///
    /// [`transaction`](Self::transaction) and connections of [`get`](Self::get) do everything once.
    pub fn retry(&self) -> Retry<'_, C> {
        Retry {
            pool: self,
            idempotent: false,
        }
    }
}

/// Does work on a [`Pool`]'s connections, and again if that is safe; see [`Pool::retry`]. The policy's `retry_attempts` and
/// `retry_budget` bound the attempts.
///
/// # Closures
///
/// Work may be called more than once, so it borrows what it needs:
///
/// ```no_run
/// # use diesel::prelude::*;
/// # use diesel_async::RunQueryDsl;
/// # use diesel_neon::{Pool, RetryError};
/// # diesel::table! { books { id -> Integer, title -> Text } }
/// # async fn add(pool: &Pool, title: String) -> Result<(), RetryError> {
/// pool.retry()
///     .transaction(async |connection| {
///         diesel::insert_into(books::table)
///             .values(books::title.eq(&title))
///             .execute(connection)
///             .await?;
///         Ok::<_, RetryError>(())
///     })
///     .await
/// # }
/// ```
///
/// Leave `move` out: each call of an `async move` closure would borrow from what the closure owns, and the compiler says
/// that it "does not implement `Fn` because it captures state from its environment".
///
/// Where the future must own what the work borrows, such as in a task, an `async move` block around it does:
///
/// ```no_run
/// # use diesel::prelude::*;
/// # use diesel_async::RunQueryDsl;
/// # use diesel_neon::{Pool, RetryError};
/// # diesel::table! { books { id -> Integer, title -> Text } }
/// # fn add(pool: Pool, title: String) {
/// tokio::spawn(async move {
///     let insert = async |connection: &mut diesel_neon::Connection| {
///         diesel::insert_into(books::table)
///             .values(books::title.eq(&title))
///             .execute(connection)
///             .await?;
///         Ok::<_, RetryError>(())
///     };
///     pool.retry().transaction(insert).await
/// });
/// # }
/// ```
#[must_use = "nothing is done before run() or transaction() is called"]
pub struct Retry<'a, C: Establish = Connection> {
    pool: &'a Pool<C>,
    idempotent: bool,
}

impl<'a, C: Establish> Retry<'a, C> {
    /// Declares that work may be done twice without harm, so that it is also done again if nobody knows whether the
    /// first time counted.
    ///
    /// Reads are idempotent. So are writes that carry a key under which the database keeps them once: `INSERT … ON
    /// CONFLICT DO NOTHING` on a unique column whose value the caller has chosen. The feature `books` shows the latter,
    /// in `books::insert_once`.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Gets a connection and does `work` with it; again on another connection if the first one turns out dead before
    /// anything was sent on it.
    ///
    /// So it is if a first statement is known never to have arrived
    /// ([`is_undelivered`](crate::DatabaseErrorExt::is_undelivered)).
    ///
    /// After any other failure, `work` is not done again: its statements commit one by one, and nobody knows whether a
    /// statement without an answer has run. If doing it twice does no harm, say so with
    /// [`idempotent`](Self::idempotent), and it is done again after any transient failure; if several statements belong
    /// together, use [`transaction`](Self::transaction).
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
        attempt::run(self.pool, self.idempotent, work)
    }

    /// Does `work` in a transaction; all of it again, on another connection, after a failure that left nothing behind: a
    /// serialization failure, a deadlock, a connection that was lost before COMMIT was sent.
    ///
    /// Unless it is declared [`idempotent`](Self::idempotent), `work` is not done again if the connection is lost while
    /// COMMIT is under way, since the transaction may have been committed (unless the pool has found the server inside of
    /// the transaction still, see [`silence_threshold`](crate::PolicyBuilder::silence_threshold)); nor if `work` has ended the transaction by
    /// itself, with a `COMMIT` in its own SQL for example, or may have since the response to that was lost.
    ///
    /// After `NOWAIT` or `lock_timeout`, `work` is never done again: a caller that does not want to wait for a lock is
    /// told so at once. After the policy's [`response_timeout`](crate::PolicyBuilder::response_timeout), it is done again
    /// only if it is declared idempotent: the statement may only be long, and may still be under way.
    ///
    /// ```no_run
    /// # use diesel::prelude::*;
    /// # use diesel_async::RunQueryDsl;
    /// # use diesel_neon::{Pool, RetryError};
    /// # diesel::table! { accounts { id -> Integer, balance -> Integer } }
    /// # async fn transfer(pool: &Pool) -> Result<(), RetryError> {
    /// pool.retry()
    ///     .transaction(async |connection| {
    ///         for (account, amount) in [(1, -10), (2, 10)] {
    ///             diesel::update(accounts::table.find(account))
    ///                 .set(accounts::balance.eq(accounts::balance + amount))
    ///                 .execute(connection)
    ///                 .await?;
    ///         }
    ///         Ok::<_, RetryError>(())
    ///     })
    ///     .await
    /// # }
    /// ```
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
        attempt::transaction(self.pool, self.idempotent, work)
    }
}

// Derived, these would ask the same of the connection.
impl<C: Establish> Clone for Retry<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: Establish> Copy for Retry<'_, C> {}

impl<C: Establish> fmt::Debug for Retry<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("pool", self.pool)
            .field("idempotent", &self.idempotent)
            .finish()
    }
}
