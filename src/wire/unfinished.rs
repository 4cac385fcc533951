//! [`Unfinished`]: a transaction whose future may be dropped.

use std::sync::Arc;

use super::link::Link;
use super::observed::Observed;

/// Watches over a session's transactions that each run in one future.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Observed>);

/// Abandons the transaction that it stands for if it is dropped before [`end`](Self::end): its depth, and on
/// the server its effects, are still there, and whatever followed on the connection would run inside of it.
#[derive(Debug)]
pub(crate) struct Unfinished(Option<Arc<Observed>>);

impl Watch {
    pub(crate) fn new(observed: &Arc<Observed>) -> Self {
        Self(Arc::clone(observed))
    }

    /// Notes that a transaction, or its end, is under way from here on.
    pub(crate) fn begin(self) -> Unfinished {
        self.0.guard();
        Unfinished(Some(self.0))
    }
}

impl Unfinished {
    /// Notes that the transaction has come to its own end.
    pub(crate) fn end(mut self) {
        if let Some(observed) = self.0.take() {
            observed.unguard();
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(observed) = &self.0 {
            observed.unguard();
            observed.abandon_transaction();
        }
    }
}

impl Link {
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.shared_observed())
    }
}
