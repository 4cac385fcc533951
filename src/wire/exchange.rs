//! [`Exchanges`]: the requests that were sent, and whose answers they are.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use super::message::Message;

/// In the order of the answers.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    all: VecDeque<Exchange>,
    /// The bytes that all of them keep.
    kept: usize,
    /// How many messages have been taken of those that were kept.
    taken: u64,
}

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
    /// Whether the server has asked for data, and has not said that it has copied it.
    pub(super) takes_data: bool,
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

impl Exchange {
    pub(super) fn of(owner: Owner) -> Self {
        Self {
            id: 0,
            owner,
            opening: 0,
            begins: 0,
            simple: false,
            single: false,
            outcome: Outcome::Unknown,
            copies: false,
            takes_data: false,
            answered: false,
            end: 0,
            kept: VecDeque::new(),
        }
    }
}

impl Exchanges {
    pub(super) fn push(&mut self, exchange: Exchange) {
        self.all.push_back(exchange);
    }

    /// Keeps a message for the owner of its exchange.
    pub(super) fn keep(&mut self, index: usize, message: Message) {
        self.kept += message.len();
        self.all[index].kept.push_back(message);
    }

    /// Whether so much is kept that nothing is to be read ahead, but by the owner of what is next.
    pub(super) fn is_full(&self) -> bool {
        self.kept >= KEPT
            && self
                .current()
                .is_some_and(|next| next.owner == Owner::Waits)
    }

    /// How much has been taken so far of what is kept, if there is no room to read ahead for `id`.
    pub(super) fn stalled(&self, id: Option<u64>) -> Option<u64> {
        let next = self.current().map(|next| next.id);
        (self.is_full() && next != id).then_some(self.taken)
    }

    /// The exchange that the server answers next.
    pub(super) fn current(&self) -> Option<&Exchange> {
        self.outstanding().next()
    }

    /// Where that is.
    pub(super) fn current_index(&self) -> Option<usize> {
        self.all.iter().position(|exchange| !exchange.answered)
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

    /// Whether the caller of that request had its result, and gave up the rest.
    pub(super) fn has_served(&self, id: u64) -> bool {
        let served = |exchange: &Exchange| exchange.id == id && exchange.owner == Owner::Served;
        self.all.iter().any(served)
    }

    /// Whether somebody waits for an answer behind that one.
    pub(super) fn is_waited_for(&self, id: u64) -> bool {
        let waits = |exchange: &Exchange| exchange.id > id && exchange.owner == Owner::Waits;
        self.all.iter().any(waits)
    }

    /// Whether this request was a COMMIT that the server has acknowledged.
    pub(super) fn is_committed(&self, id: u64) -> bool {
        let mut all = self.all.iter();
        all.any(|exchange| exchange.id == id && exchange.outcome == Outcome::Committed)
    }

    fn outstanding(&self) -> impl Iterator<Item = &Exchange> {
        self.all.iter().filter(|exchange| !exchange.answered)
    }

    pub(super) fn take_kept(&mut self, id: u64) -> Option<Message> {
        let index = self.all.iter().position(|exchange| exchange.id == id)?;
        let exchange = &mut self.all[index];
        let message = exchange.kept.pop_front()?;
        self.kept -= message.len();
        self.taken += 1;
        if exchange.answered && exchange.kept.is_empty() {
            self.all.remove(index);
        }
        Some(message)
    }

    /// Whether the server may still want this request's data.
    pub(super) fn takes_data(&self, id: u64) -> bool {
        self.outstanding().any(|exchange| exchange.id == id)
    }

    /// Nobody waits for this answer any more. Returns whether the server waits for data that will not come.
    pub(super) fn disown(&mut self, id: u64, tail: bool) -> bool {
        let Some(index) = self.all.iter().position(|exchange| exchange.id == id) else {
            return false;
        };
        let exchange = &mut self.all[index];
        let kept = std::mem::take(&mut exchange.kept);
        self.kept -= kept.iter().map(Message::len).sum::<usize>();
        exchange.owner = if tail { Owner::Served } else { Owner::Gone };
        if exchange.answered {
            self.all.remove(index);
            return false;
        }
        kept.iter().any(|message| message.tag == b'G')
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.all.remove(index);
    }
}

/// How many bytes may be read ahead of what is next.
const KEPT: usize = 1024 * 1024;

impl Index<usize> for Exchanges {
    type Output = Exchange;

    fn index(&self, index: usize) -> &Exchange {
        &self.all[index]
    }
}

impl IndexMut<usize> for Exchanges {
    fn index_mut(&mut self, index: usize) -> &mut Exchange {
        &mut self.all[index]
    }
}
