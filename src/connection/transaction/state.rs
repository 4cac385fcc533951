//! [`TransactionState`]: the transaction depth of a connection.

use diesel::connection::TransactionManagerStatus;

/// The transaction depth of a [`Connection`](crate::Connection).
#[derive(Debug, Default)]
pub struct TransactionState {
    pub(super) status: TransactionManagerStatus,
}
