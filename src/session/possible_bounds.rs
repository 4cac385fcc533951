//! [`PossibleBounds`]: the statements of a session that may have begun or ended a transaction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::util::effects::Effects;

/// Counts the statements that may have begun a transaction, and those that may have ended one. What this crate sends of
/// its own is not among them.
#[derive(Debug, Default)]
pub(crate) struct PossibleBounds {
    begins: AtomicU64,
    ends: AtomicU64,
    may_chain: AtomicBool,
}

impl PossibleBounds {
    /// Returns how many statements were sent that may have begun a transaction.
    pub(crate) fn begins(&self) -> u64 {
        self.begins.load(Ordering::Acquire)
    }

    /// Returns how many statements were sent that may have ended one.
    pub(crate) fn ends(&self) -> u64 {
        self.ends.load(Ordering::Acquire)
    }

    /// Returns whether the transaction that is open at the server may be another than the one that was begun here: COMMIT AND
    /// CHAIN was sent, or something unknown.
    pub(crate) fn may_have_chained(&self) -> bool {
        self.may_chain.load(Ordering::Acquire)
    }

    /// Notes that `sql` is about to be sent, which has these effects.
    pub(crate) fn note(&self, sql: &str, effects: Effects) {
        if effects.ends_transaction {
            self.add_end(!matches!(sql, "COMMIT" | "ROLLBACK"));
        }
        if effects.begins_transaction {
            self.add_begin();
        }
    }

    /// Notes that a statement is about to be sent whose text is not known.
    pub(super) fn note_unknown(&self) {
        self.add_end(true);
        self.add_begin();
    }

    fn add_end(&self, may_chain: bool) {
        self.may_chain.fetch_or(may_chain, Ordering::AcqRel);
        self.ends.fetch_add(1, Ordering::AcqRel);
    }

    fn add_begin(&self) {
        self.begins.fetch_add(1, Ordering::AcqRel);
    }
}
