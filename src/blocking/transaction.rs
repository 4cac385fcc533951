//! [`TransactionManager`]: transactions of a synchronous connection.

use diesel::connection::TransactionManager as _;
use diesel::connection::TransactionManagerStatus;
use diesel::result::{Error, QueryResult};
use diesel_async::TransactionManager as AsyncTransactionManager;

use super::connection::Connection;
use crate::connection::{TransactionBuilder, TransactionState};

type Inner = crate::connection::TransactionManager;

/// Begins, commits and rolls back, as the asynchronous [`TransactionManager`](crate::TransactionManager) does: BEGIN and
/// SAVEPOINT wait for the first statement behind them.
#[derive(Debug)]
pub struct TransactionManager(());

impl diesel::connection::TransactionManager<Connection> for TransactionManager {
    type TransactionStateData = TransactionState;

    fn begin_transaction(connection: &mut Connection) -> QueryResult<()> {
        connection.wait(<Inner as AsyncTransactionManager<_>>::begin_transaction)
    }

    fn rollback_transaction(connection: &mut Connection) -> QueryResult<()> {
        connection.wait(<Inner as AsyncTransactionManager<_>>::rollback_transaction)
    }

    fn commit_transaction(connection: &mut Connection) -> QueryResult<()> {
        connection.wait(<Inner as AsyncTransactionManager<_>>::commit_transaction)
    }

    fn transaction_manager_status_mut(
        connection: &mut Connection,
    ) -> &mut TransactionManagerStatus {
        Inner::transaction_manager_status_mut(connection.as_async())
    }

    fn is_broken_transaction_manager(connection: &mut Connection) -> bool {
        Inner::is_broken_transaction_manager(connection.as_async())
    }
}

impl TransactionBuilder<'_, Connection> {
    /// Runs `f` in the transaction: commits if `f` returns `Ok`, else rolls back.
    ///
    /// # Errors
    ///
    /// The error of `f`; [`Error::AlreadyInTransaction`] inside a transaction; the error of the COMMIT or the ROLLBACK.
    pub fn run<T, E, F>(&mut self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E>,
        E: From<Error>,
    {
        let begin = self.begin()?;
        let connection = &mut *self.connection;
        Inner::begin_with(connection.as_async(), begin)?;
        match f(connection) {
            Ok(value) => {
                TransactionManager::commit_transaction(connection)?;
                Ok(value)
            }
            Err(error) => match TransactionManager::rollback_transaction(connection) {
                // The caller's own error matters more.
                Ok(()) | Err(Error::BrokenTransactionManager) => Err(error),
                Err(rollback_error) => Err(rollback_error.into()),
            },
        }
    }
}
