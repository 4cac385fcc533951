//! [`TransactionState`]: how deep in transactions a connection is.

use diesel::connection::TransactionManagerStatus;

/// How deep in transactions a [`Connection`](crate::Connection) is.
#[derive(Debug, Default)]
pub struct TransactionState {
    pub(super) status: TransactionManagerStatus,
}
