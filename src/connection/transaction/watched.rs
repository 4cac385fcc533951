//! Transactions that run in one future, and are abandoned where that is dropped.

use std::future::Future;

use diesel::result::Error;
use diesel_async::{AsyncConnection, TransactionManager};

use crate::manager::Establish;
use crate::pool::PooledConnection;
use crate::wire::Watch;

/// What runs in a transaction; diesel-async's own name for it is private.
pub trait Callback<A, R>:
    AsyncFnOnce(A) -> R + FnOnce(A) -> <Self as Callback<A, R>>::Future
{
    /// What the closure returns.
    type Future: Future<Output = R>;
}

impl<F, A, R, Fut> Callback<A, R> for F
where
    F: AsyncFnOnce(A) -> R + FnOnce(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Future = Fut;
}

/// Runs `callback` in a transaction.
#[expect(
    clippy::manual_async_fn,
    reason = "it promises to be Send, whatever the callback"
)]
pub(super) fn watched<C, F, R, E>(
    connection: &mut C,
    watch: Watch,
    callback: F,
) -> impl Future<Output = Result<R, E>> + Send
where
    C: AsyncConnection + Send,
    for<'r> F: Callback<&'r mut C, Result<R, E>, Future: Send> + Send,
    E: From<Error> + Send,
    R: Send,
{
    async move {
        C::TransactionManager::begin_transaction(connection).await?;
        let unfinished = watch.begin();
        let done = callback(connection).await;
        let ended = end(connection, done).await;
        unfinished.end();
        ended
    }
}

/// Commits where the work of the transaction has succeeded, else rolls back.
pub(super) async fn end<C, R, E>(connection: &mut C, done: Result<R, E>) -> Result<R, E>
where
    C: AsyncConnection,
    E: From<Error>,
{
    match done {
        Ok(value) => {
            C::TransactionManager::commit_transaction(connection).await?;
            Ok(value)
        }
        Err(error) => match C::TransactionManager::rollback_transaction(connection).await {
            // What the caller has to say matters more.
            Ok(()) | Err(Error::BrokenTransactionManager) => Err(error),
            Err(rollback_error) => Err(rollback_error.into()),
        },
    }
}

/// In front of the methods of the same names that diesel-async gives whatever derefs to a connection: those know
/// nothing of a future that is dropped.
impl<C: Establish> PooledConnection<'_, C> {
    /// Runs `callback` in a transaction: commits where it returns `Ok`, else rolls back.
    ///
    /// If the future is dropped before its end, nothing else runs on this connection: each statement fails with
    /// [`AbandonedTransaction`](crate::AbandonedTransaction), and the pool replaces the connection.
    ///
    /// # Errors
    ///
    /// What `callback` returns; why the transaction could not be begun, committed or rolled back.
    pub fn transaction<R, E, F>(&mut self, callback: F) -> impl Future<Output = Result<R, E>> + Send
    where
        for<'r> F: Callback<&'r mut Self, Result<R, E>, Future: Send> + Send,
        E: From<Error> + Send,
        R: Send,
    {
        let watch = Watch::new(&self.lease().session().observed);
        watched(self, watch, callback)
    }

    /// Runs `callback` in a transaction that is never committed, and returns what it returns.
    ///
    /// # Panics
    ///
    /// If `callback` fails.
    pub fn test_transaction<'a, R, E, F>(
        &'a mut self,
        callback: F,
    ) -> impl Future<Output = R> + Send
    where
        for<'r> F: Callback<&'r mut C, Result<R, E>, Future: Send> + Send + 'a,
        E: std::fmt::Debug + Send + 'a,
        R: Send + 'a,
    {
        C::test_transaction(self, callback)
    }
}
