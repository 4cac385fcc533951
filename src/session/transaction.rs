//! The transactions of a session: the commands that open them, and the guard of those that run in one future.

use std::sync::Arc;

use super::handle::SessionHandle;
use super::preamble::{Command, Preamble, SentPreamble, is_begin};
use super::status::SessionStatus;

/// Guards the transactions of a session that each run in one future.
#[derive(Clone, Debug)]
pub(crate) struct TransactionMonitor(Arc<SessionStatus>);

/// Abandons its transaction if it is dropped before [`end`](Self::end): the transaction is still open on the server,
/// and the next statement on the connection would run inside it.
#[derive(Debug)]
pub(crate) struct TransactionGuard(Option<(Arc<SessionStatus>, u32)>);

/// Guards the ROLLBACK of a whole transaction. If it is dropped before [`end`](Self::end), the transaction is not
/// abandoned, since all wanted its end: the ROLLBACK is sent in front of the next request, unless it was sent.
#[derive(Debug)]
pub(crate) struct RollbackGuard(Option<(Arc<SessionStatus>, u32, u64)>);

impl TransactionMonitor {
    pub(crate) fn new(status: &Arc<SessionStatus>) -> Self {
        Self(Arc::clone(status))
    }

    /// Notes that a transaction, or its COMMIT or ROLLBACK, is under way.
    pub(crate) fn begin(self) -> TransactionGuard {
        let given_up = self.0.guard();
        TransactionGuard(Some((self.0, given_up)))
    }

    /// Notes that the ROLLBACK of the whole transaction is under way.
    pub(crate) fn begin_rollback(self) -> RollbackGuard {
        let (given_up, sent) = (self.0.guard(), self.0.bounds.ends());
        RollbackGuard(Some((self.0, given_up, sent)))
    }
}

impl TransactionGuard {
    /// Notes that the transaction has ended as its future wanted.
    pub(crate) fn end(mut self) {
        if let Some((status, given_up)) = self.0.take() {
            status.unguard(given_up);
        }
    }
}

impl Drop for TransactionGuard {
    fn drop(&mut self) {
        if let Some((status, given_up)) = &self.0 {
            if status.unguard(*given_up) {
                status.abandon_transaction();
            }
        }
    }
}

impl RollbackGuard {
    /// Notes that the ROLLBACK has an answer.
    pub(crate) fn end(mut self) {
        if let Some((status, given_up, _)) = self.0.take() {
            status.unguard(given_up);
        }
    }

    /// Notes that the ROLLBACK has failed, so that the transaction is still open.
    pub(crate) fn abandon(mut self) {
        if let Some((status, given_up, _)) = self.0.take() {
            status.unguard(given_up);
            status.abandon_transaction();
        }
    }
}

impl Drop for RollbackGuard {
    fn drop(&mut self) {
        if let Some((status, _, sent)) = &self.0 {
            status.give_up_rollback(status.bounds.ends() != *sent);
        }
    }
}

impl SessionHandle {
    pub(crate) fn monitor(&self) -> TransactionMonitor {
        TransactionMonitor(self.shared_status())
    }

    /// Appends a command to those that run in front of the next request, in the same group.
    pub(crate) fn push_preamble(&self, command: Command) {
        let mut pipeline = self.lock();
        match &mut pipeline.preamble {
            Preamble::Pending(commands) => commands.push(command),
            preamble => *preamble = Preamble::Pending(vec![command]),
        }
    }

    /// Begins the transaction anew whose first statement has failed. `preamble` rode in front of that statement.
    /// Returns false if other statements ran in the transaction before, or were sent behind: they fail with it, and the
    /// transaction must not be committed without them.
    pub(crate) fn restart_transaction(&self, preamble: SentPreamble) -> bool {
        let mut pipeline = self.lock();
        let is_alone = pipeline.next_id == preamble.request + 1;
        if !is_alone || !preamble.commands.iter().any(is_begin) {
            return false;
        }
        let mut commands = vec![Command::from("ROLLBACK")];
        commands.extend(preamble.commands);
        pipeline.preamble = Preamble::Pending(commands);
        true
    }

    /// Returns how many commands wait to run in front of the next request.
    pub(crate) fn preamble_len(&self) -> usize {
        match &self.lock().preamble {
            Preamble::Pending(commands) => commands.len(),
            _ => 0,
        }
    }

    /// Removes the last command of [`push_preamble`](Self::push_preamble); returns false if it has been sent.
    pub(crate) fn pop_preamble(&self) -> bool {
        let mut pipeline = self.lock();
        let Preamble::Pending(commands) = &mut pipeline.preamble else {
            return false;
        };
        commands.pop();
        if commands.is_empty() {
            pipeline.preamble = Preamble::Empty;
        }
        true
    }

    /// Forgets that a transaction was abandoned, and its commands that have not been sent.
    pub(crate) fn forget_transaction(&self) {
        self.lock().preamble = Preamble::Empty;
        self.status().forget_abandoned_transaction();
    }

    /// Returns whether the BEGIN of the current transaction has failed.
    pub(crate) fn has_failed_begin(&self) -> bool {
        matches!(self.lock().preamble, Preamble::Failed)
    }

    /// Notes that the transaction whose BEGIN has failed is rolled back.
    pub(crate) fn clear_failed_begin(&self) {
        let mut pipeline = self.lock();
        if matches!(pipeline.preamble, Preamble::Failed) {
            pipeline.preamble = Preamble::Empty;
        }
    }
}
