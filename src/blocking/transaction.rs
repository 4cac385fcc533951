//! [`TransactionManager`]: transactions of a synchronous connection.

use diesel::connection::TransactionManagerStatus;
use diesel::result::{Error, QueryResult};
use diesel_async::TransactionManager as AsyncTransactionManager;

use super::connection::Connection;
use crate::connection::transaction::end;
use crate::connection::{TransactionBuilder, TransactionState};

type Inner = crate::connection::TransactionManager;

/// Begins, commits and rolls back, as the asynchronous [`TransactionManager`](crate::TransactionManager) does: BEGIN and
/// SAVEPOINT wait for the first statement behind them.
#[derive(Debug)]
pub struct TransactionManager(());

impl diesel::connection::TransactionManager<Connection> for TransactionManager {
    type TransactionStateData = TransactionState;

    fn transaction<F, R, E>(connection: &mut Connection, work: F) -> Result<R, E>
    where
        F: FnOnce(&mut Connection) -> Result<R, E>,
        E: From<Error>,
    {
        Self::begin_transaction(connection)?;
        guarded(connection, work)
    }

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
        Inner::begin_with(self.connection.as_async(), begin)?;
        guarded(self.connection, f)
    }
}

/// Does `work` in the transaction that has begun, and ends it. If `work` panics, the transaction is abandoned.
fn guarded<R, E>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<R, E>,
) -> Result<R, E>
where
    E: From<Error>,
{
    let guard = connection.as_async().monitor().begin();
    let outcome = work(connection);
    let ended = connection.wait(|connection| end(connection, outcome));
    guard.end();
    ended
}
