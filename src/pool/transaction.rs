//! [`Pool::transaction`] and [`PooledConnection::transaction`]: transactions that run once.

use std::future::Future;

use diesel::result::Error;

use super::Pool;
use super::checkout::PooledConnection;
use super::error::PoolError;
use crate::connect::Establish;
use crate::connection::transaction::{Callback, scoped};
use crate::session::TransactionMonitor;

impl<C: Establish> Pool<C> {
    /// Gets a connection and runs `callback` in a transaction on it, once: commits if it returns `Ok`, else rolls back.
    ///
    /// [`retry`](Self::retry) runs it again after failures that leave nothing behind.
    ///
    /// `callback` runs once, so it may own what it needs:
    ///
    /// ```no_run
    /// # use diesel::prelude::*;
    /// # use diesel_async::RunQueryDsl;
    /// # use diesel_neon::{Pool, RetryError};
    /// # diesel::table! { books { id -> Integer, title -> Text } }
    /// # async fn add(pool: &Pool, title: String) -> Result<(), RetryError> {
    /// pool.transaction(async move |connection| {
    ///     diesel::insert_into(books::table)
    ///         .values(books::title.eq(title))
    ///         .execute(connection)
    ///         .await?;
    ///     Ok::<_, RetryError>(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `callback`, or the reason why there is no connection, or why the transaction could not begin, commit
    /// or roll back.
    #[expect(
        clippy::manual_async_fn,
        reason = "it promises to be Send, whatever the callback"
    )]
    pub fn transaction<'a, R, E, F>(
        &'a self,
        callback: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'a
    where
        for<'r> F: Callback<&'r mut C, Result<R, E>, Future: Send> + Send + 'a,
        E: From<PoolError> + From<Error> + Send + 'a,
        R: Send + 'a,
    {
        async move {
            let mut connection = self.get().await?;
            let monitor = TransactionMonitor::new(&connection.entry().session().status);
            scoped(&mut *connection, monitor, callback).await
        }
    }
}

/// These take precedence over diesel-async's methods of the same names, which leave a transaction open if their future is
/// dropped.
impl<C: Establish> PooledConnection<'_, C> {
    /// Runs `callback` in a transaction: commits if it returns `Ok`, else rolls back.
    ///
    /// If the future is dropped before its end, every later statement of this connection fails with
    /// [`AbandonedTransaction`](crate::AbandonedTransaction), and the pool replaces the connection.
    ///
    /// # Errors
    ///
    /// The error of `callback`, or the reason why the transaction could not begin, commit or roll back.
    pub fn transaction<R, E, F>(&mut self, callback: F) -> impl Future<Output = Result<R, E>> + Send
    where
        for<'r> F: Callback<&'r mut Self, Result<R, E>, Future: Send> + Send,
        E: From<Error> + Send,
        R: Send,
    {
        let monitor = TransactionMonitor::new(&self.entry().session().status);
        scoped(self, monitor, callback)
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
