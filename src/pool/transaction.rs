//! [`PooledConnection::transaction`]: transactions on a pooled connection.

use std::future::Future;

use diesel::result::Error;

use super::checkout::PooledConnection;
use crate::connect::Establish;
use crate::connection::transaction::{Callback, scoped};
use crate::session::TransactionMonitor;

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
