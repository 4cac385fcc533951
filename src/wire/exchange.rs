//! [`Exchanges`]: the requests that were sent, and whose answers they are.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use super::message::Message;

/// In the order of the answers.
#[derive(Debug, Default)]
pub(super) struct Exchanges(VecDeque<Exchange>);

/// A request that was sent, until its answer has been consumed.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: u64,
    pub(super) owner: Owner,
    /// Commands that ride in front of the request and have not been answered.
    pub(super) opening: usize,
    /// How many of them are due until the transaction has begun.
    pub(super) begins: usize,
    pub(super) simple: bool,
    /// Whether it is one command, so that nothing follows the first CommandComplete but ReadyForQuery.
    pub(super) single: bool,
    pub(super) outcome: Outcome,
    /// Whether its caller copies data.
    pub(super) copies: bool,
    pub(super) answered: bool,
    /// Where it ends in all that is written to the stream.
    pub(super) end: u64,
    /// Read while somebody waited for what is behind it.
    pub(super) kept: VecDeque<Message>,
}

/// What the server has said of how a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Unknown,
    Told,
    /// A COMMIT is complete: what happens to the session afterwards does not undo it.
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Waits,
    /// Gave up before it had a result.
    Gone,
    /// Had its result, and gave up the rest.
    Served,
}

impl Exchanges {
    pub(super) fn push(&mut self, exchange: Exchange) {
        self.0.push_back(exchange);
    }

    /// The exchange that the server answers next.
    pub(super) fn current(&self) -> Option<&Exchange> {
        self.outstanding().next()
    }

    /// Where that is.
    pub(super) fn current_index(&self) -> Option<usize> {
        self.0.iter().position(|exchange| !exchange.answered)
    }

    pub(super) fn is_outstanding(&self) -> bool {
        self.current().is_some()
    }

    /// Whether it is not known yet if what rode in front of a request has succeeded.
    pub(super) fn is_opening(&self) -> bool {
        self.outstanding().any(|exchange| exchange.opening > 0)
    }

    /// How many of the first so many bytes' requests are outstanding.
    pub(super) fn owed(&self, written: u64) -> usize {
        let whole = |exchange: &&Exchange| exchange.end <= written;
        self.outstanding().filter(whole).count()
    }

    pub(super) fn is_copying(&self) -> bool {
        self.outstanding().any(|exchange| exchange.copies)
    }

    /// Whether an answer is outstanding that nobody waits for.
    pub(super) fn has_orphan(&self) -> bool {
        self.outstanding()
            .any(|exchange| exchange.owner != Owner::Waits)
    }

    /// Whether one of them was given up before it had a result.
    pub(super) fn is_abandoned(&self) -> bool {
        self.outstanding()
            .any(|exchange| exchange.owner == Owner::Gone)
    }

    /// Whether somebody who can do without the rest of an answer waits for the one behind it.
    pub(super) fn is_waited_for(&self, id: u64) -> bool {
        let served = |exchange: &Exchange| exchange.id == id && exchange.owner == Owner::Served;
        let waits = |exchange: &Exchange| exchange.id > id && exchange.owner == Owner::Waits;
        self.0.iter().any(served) && self.0.iter().any(waits)
    }

    /// Whether this request was a COMMIT that the server has acknowledged.
    pub(super) fn is_committed(&self, id: u64) -> bool {
        let mut all = self.0.iter();
        all.any(|exchange| exchange.id == id && exchange.outcome == Outcome::Committed)
    }

    fn outstanding(&self) -> impl Iterator<Item = &Exchange> {
        self.0.iter().filter(|exchange| !exchange.answered)
    }

    pub(super) fn take_kept(&mut self, id: u64) -> Option<Message> {
        let index = self.0.iter().position(|exchange| exchange.id == id)?;
        let exchange = &mut self.0[index];
        let message = exchange.kept.pop_front()?;
        if exchange.answered && exchange.kept.is_empty() {
            self.0.remove(index);
        }
        Some(message)
    }

    /// Nobody waits for this answer any more.
    pub(super) fn disown(&mut self, id: u64, tail: bool) {
        let Some(index) = self.0.iter().position(|exchange| exchange.id == id) else {
            return;
        };
        let exchange = &mut self.0[index];
        exchange.kept = VecDeque::new();
        exchange.owner = if tail { Owner::Served } else { Owner::Gone };
        if exchange.answered {
            self.0.remove(index);
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.0.remove(index);
    }
}

impl Index<usize> for Exchanges {
    type Output = Exchange;

    fn index(&self, index: usize) -> &Exchange {
        &self.0[index]
    }
}

impl IndexMut<usize> for Exchanges {
    fn index_mut(&mut self, index: usize) -> &mut Exchange {
        &mut self.0[index]
    }
}
