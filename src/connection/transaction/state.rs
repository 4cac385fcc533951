//! [`TransactionState`]: the transaction depth of a connection, and what had changed before each transaction.

use std::num::NonZeroU32;

use diesel::connection::TransactionManagerStatus;

/// The transaction depth of a [`Connection`](crate::Connection).
#[derive(Debug, Default)]
pub struct TransactionState {
    pub(super) status: TransactionManagerStatus,
    /// How many changes of tables there were before each of the open transactions.
    changes: Vec<u64>,
}

impl TransactionState {
    /// Notes how many changes there are before a transaction of this depth.
    pub(crate) fn mark(&mut self, depth: NonZeroU32, changes: u64) {
        self.changes.truncate(depth.get() as usize - 1);
        self.changes.push(changes);
    }

    /// Returns how many changes there were before the transaction of this depth.
    pub(crate) fn changes_before(&self, depth: NonZeroU32) -> Option<u64> {
        self.changes.get(depth.get() as usize - 1).copied()
    }
}
