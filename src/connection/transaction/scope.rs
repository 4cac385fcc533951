//! Transactions that run in one future, and are abandoned if the future is dropped.

use std::future::Future;

use diesel::result::Error;
use diesel_async::{AsyncConnection, TransactionManager};

use crate::session::TransactionMonitor;

/// A closure that runs in a transaction. diesel-async's own trait for it is private.
pub trait Callback<A, R>:
    AsyncFnOnce(A) -> R + FnOnce(A) -> <Self as Callback<A, R>>::Future
{
    /// The future that the closure returns.
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
pub(crate) fn scoped<C, F, R, E>(
    connection: &mut C,
    monitor: TransactionMonitor,
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
        let guard = monitor.begin();
        let outcome = callback(connection).await;
        let ended = end(connection, outcome).await;
        guard.end();
        ended
    }
}

/// Commits if the transaction's work has succeeded, else rolls back.
pub(crate) async fn end<C, R, E>(connection: &mut C, outcome: Result<R, E>) -> Result<R, E>
where
    C: AsyncConnection,
    E: From<Error>,
{
    match outcome {
        Ok(value) => {
            C::TransactionManager::commit_transaction(connection).await?;
            Ok(value)
        }
        Err(error) => match C::TransactionManager::rollback_transaction(connection).await {
            // The caller's own error matters more.
            Ok(()) | Err(Error::BrokenTransactionManager) => Err(error),
            Err(rollback_error) => Err(rollback_error.into()),
        },
    }
}
