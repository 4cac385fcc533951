//! [`HttpTransactionManager`]: refuses transactions that go over several requests.

use std::fmt;

use diesel::connection::TransactionManagerStatus;
use diesel::result::{Error, QueryResult};
use diesel_async::TransactionManager;

use super::connection::HttpConnection;
use super::unsupported::TransactionUnsupported;

/// Diesel's transaction manager of an [`HttpConnection`], which refuses each transaction with [`TransactionUnsupported`]
/// before anything is sent.
pub struct HttpTransactionManager(());

impl TransactionManager<HttpConnection> for HttpTransactionManager {
    type TransactionStateData = TransactionManagerStatus;

    async fn begin_transaction(_: &mut HttpConnection) -> QueryResult<()> {
        Err(Error::QueryBuilderError(Box::new(TransactionUnsupported(
            (),
        ))))
    }

    async fn rollback_transaction(_: &mut HttpConnection) -> QueryResult<()> {
        Err(Error::NotInTransaction)
    }

    async fn commit_transaction(_: &mut HttpConnection) -> QueryResult<()> {
        Err(Error::NotInTransaction)
    }

    fn transaction_manager_status_mut(
        connection: &mut HttpConnection,
    ) -> &mut TransactionManagerStatus {
        connection.transactions()
    }
}

impl fmt::Debug for HttpTransactionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpTransactionManager")
    }
}
