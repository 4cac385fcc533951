//! [`PossibleEnds`]: the statements of a session that may have ended its transaction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::util::ending::may_end_transaction;

/// Counts the statements that may have ended a transaction.
#[derive(Debug, Default)]
pub(crate) struct PossibleEnds {
    count: AtomicU64,
    may_chain: AtomicBool,
}

impl PossibleEnds {
    /// Returns how many such statements were sent.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Returns whether the transaction that is open at the server may be another than the one that was begun here: COMMIT AND
    /// CHAIN was sent, or something unknown.
    pub(crate) fn may_have_chained(&self) -> bool {
        self.may_chain.load(Ordering::Acquire)
    }

    /// Notes that `sql` is about to be sent, which may be `several` statements.
    pub(crate) fn note(&self, sql: &str, several: bool) {
        if may_end_transaction(sql, several) {
            self.add(!matches!(sql, "COMMIT" | "ROLLBACK"));
        }
    }

    /// Notes that a statement is about to be sent whose text is not known.
    pub(super) fn note_unknown(&self) {
        self.add(true);
    }

    fn add(&self, may_chain: bool) {
        self.may_chain.fetch_or(may_chain, Ordering::AcqRel);
        self.count.fetch_add(1, Ordering::AcqRel);
    }
}
