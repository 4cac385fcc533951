//! A session's transactions: their preamble, and what guards those that run in one future.

use std::sync::Arc;

use super::handle::SessionHandle;
use super::preamble::{Command, Preamble, is_begin};
use super::status::SessionStatus;

/// Watches over a session's transactions that each run in one future.
#[derive(Clone, Debug)]
pub(crate) struct TransactionMonitor(Arc<SessionStatus>);

/// Abandons the transaction that it stands for if it is dropped before [`end`](Self::end): its depth, and on
/// the server its effects, are still there, and whatever followed on the connection would run inside of it.
#[derive(Debug)]
pub(crate) struct TransactionGuard(Option<Arc<SessionStatus>>);

impl TransactionMonitor {
    pub(crate) fn new(status: &Arc<SessionStatus>) -> Self {
        Self(Arc::clone(status))
    }

    /// Notes that a transaction, or its end, is under way from here on.
    pub(crate) fn begin(self) -> TransactionGuard {
        self.0.guard();
        TransactionGuard(Some(self.0))
    }
}

impl TransactionGuard {
    /// Notes that the transaction has come to its own end.
    pub(crate) fn end(mut self) {
        if let Some(status) = self.0.take() {
            status.unguard();
        }
    }
}

impl Drop for TransactionGuard {
    fn drop(&mut self) {
        if let Some(status) = &self.0 {
            status.unguard();
            status.abandon_transaction();
        }
    }
}

impl SessionHandle {
    pub(crate) fn monitor(&self) -> TransactionMonitor {
        TransactionMonitor(self.shared_status())
    }
}

impl SessionHandle {
    /// Has `command` run in front of the next request, in the same group.
    pub(crate) fn open(&self, command: Command) {
        let mut pipeline = self.lock();
        match &mut pipeline.preamble {
            Preamble::Pending(commands) => commands.push(command),
            preamble => *preamble = Preamble::Pending(vec![command]),
        }
    }

    /// Has the transaction that `answer` has begun, and that has failed with its first statement,
    /// begin anew. False where something else ran in it.
    pub(crate) fn restart_transaction(&self, begun: Vec<Command>) -> bool {
        if !self.status().in_failed_transaction() {
            return true;
        }
        if !begun.iter().any(is_begin) {
            return false;
        }
        let mut commands = vec![Command::from("ROLLBACK")];
        commands.extend(begun);
        self.lock().preamble = Preamble::Pending(commands);
        true
    }

    /// How many commands of [`open`](Self::open) have not been sent yet.
    pub(crate) fn preamble_len(&self) -> usize {
        match &self.lock().preamble {
            Preamble::Pending(commands) => commands.len(),
            _ => 0,
        }
    }

    /// Forgets the last command of [`open`](Self::open), if it has not been sent.
    pub(crate) fn pop_preamble(&self) -> bool {
        let mut pipeline = self.lock();
        let Preamble::Pending(commands) = &mut pipeline.preamble else {
            return false;
        };
        commands.pop();
        if commands.is_empty() {
            pipeline.preamble = Preamble::Nothing;
        }
        true
    }

    /// Forgets a transaction that was abandoned, and whatever of it has not been sent.
    pub(crate) fn forget_transaction(&self) {
        self.lock().preamble = Preamble::Nothing;
        self.status().forget_abandoned_transaction();
    }

    /// Whether the transaction that was to be opened could not be.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.lock().preamble, Preamble::Refused)
    }

    /// The transaction that could not be opened is over.
    pub(crate) fn clear_failed_begin(&self) {
        let mut pipeline = self.lock();
        if matches!(pipeline.preamble, Preamble::Refused) {
            pipeline.preamble = Preamble::Nothing;
        }
    }
}
