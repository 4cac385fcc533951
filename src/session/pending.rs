//! [`PendingRequests`]: the requests that were sent, and whose answers they are.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use crate::protocol::{Message, tag};

/// In the order of the answers.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    all: VecDeque<PendingRequest>,
    /// The bytes that all of them keep.
    kept: usize,
    /// How many messages have been taken of those that were kept.
    taken: u64,
}

/// A request that was sent, until its answer has been consumed.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) id: u64,
    pub(super) owner: Owner,
    /// Commands that ride in front of the request and have not been answered.
    pub(super) preamble: usize,
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
    Waiting,
    /// Gave up before it had a result.
    Abandoned,
    /// Had its result, and gave up the rest.
    Satisfied,
}

impl PendingRequest {
    pub(super) fn of(owner: Owner) -> Self {
        Self {
            id: 0,
            owner,
            preamble: 0,
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

impl PendingRequests {
    pub(super) fn push(&mut self, request: PendingRequest) {
        self.all.push_back(request);
    }

    /// Keeps a message for the owner of its request.
    pub(super) fn keep(&mut self, index: usize, message: Message) {
        self.kept += message.len();
        self.all[index].kept.push_back(message);
    }

    /// Whether so much is kept that nothing is to be read ahead, but by the owner of what is next.
    pub(super) fn is_full(&self) -> bool {
        self.kept >= KEPT
            && self
                .current()
                .is_some_and(|next| next.owner == Owner::Waiting)
    }

    /// How much has been taken so far of what is kept, if there is no room to read ahead for `id`.
    pub(super) fn stalled(&self, id: Option<u64>) -> Option<u64> {
        let next = self.current().map(|next| next.id);
        (self.is_full() && next != id).then_some(self.taken)
    }

    /// The request that the server answers next.
    pub(super) fn current(&self) -> Option<&PendingRequest> {
        self.outstanding().next()
    }

    /// Where that is.
    pub(super) fn current_index(&self) -> Option<usize> {
        self.all.iter().position(|request| !request.answered)
    }

    pub(super) fn is_outstanding(&self) -> bool {
        self.current().is_some()
    }

    /// Whether it is not known yet if what rode in front of a request has succeeded.
    pub(super) fn has_unconfirmed_preamble(&self) -> bool {
        self.outstanding().any(|request| request.preamble > 0)
    }

    /// How many of the first so many bytes' requests are outstanding.
    pub(super) fn owed(&self, written: u64) -> usize {
        let whole = |request: &&PendingRequest| request.end <= written;
        self.outstanding().filter(whole).count()
    }

    pub(super) fn is_copying(&self) -> bool {
        self.outstanding().any(|request| request.copies)
    }

    /// Whether an answer is outstanding that nobody waits for.
    pub(super) fn has_orphan(&self) -> bool {
        self.outstanding()
            .any(|request| request.owner != Owner::Waiting)
    }

    /// Whether one of them was given up before it had a result.
    pub(super) fn is_abandoned(&self) -> bool {
        self.outstanding()
            .any(|request| request.owner == Owner::Abandoned)
    }

    /// Whether the caller of that request had its result, and gave up the rest.
    pub(super) fn has_served(&self, id: u64) -> bool {
        let served =
            |request: &PendingRequest| request.id == id && request.owner == Owner::Satisfied;
        self.all.iter().any(served)
    }

    /// Whether somebody waits for an answer behind that one.
    pub(super) fn is_waited_for(&self, id: u64) -> bool {
        let waits = |request: &PendingRequest| request.id > id && request.owner == Owner::Waiting;
        self.all.iter().any(waits)
    }

    /// Whether this request was a COMMIT that the server has acknowledged.
    pub(super) fn is_committed(&self, id: u64) -> bool {
        let mut all = self.all.iter();
        all.any(|request| request.id == id && request.outcome == Outcome::Committed)
    }

    fn outstanding(&self) -> impl Iterator<Item = &PendingRequest> {
        self.all.iter().filter(|request| !request.answered)
    }

    pub(super) fn take_kept(&mut self, id: u64) -> Option<Message> {
        let index = self.all.iter().position(|request| request.id == id)?;
        let request = &mut self.all[index];
        let message = request.kept.pop_front()?;
        self.kept -= message.len();
        self.taken += 1;
        if request.answered && request.kept.is_empty() {
            self.all.remove(index);
        }
        Some(message)
    }

    /// Whether the server may still want this request's data.
    pub(super) fn takes_data(&self, id: u64) -> bool {
        self.outstanding().any(|request| request.id == id)
    }

    /// Nobody waits for this answer any more. Returns whether the server waits for data that will not come.
    pub(super) fn disown(&mut self, id: u64, tail: bool) -> bool {
        let Some(index) = self.all.iter().position(|request| request.id == id) else {
            return false;
        };
        let request = &mut self.all[index];
        let kept = std::mem::take(&mut request.kept);
        self.kept -= kept.iter().map(Message::len).sum::<usize>();
        request.owner = if tail {
            Owner::Satisfied
        } else {
            Owner::Abandoned
        };
        if request.answered {
            self.all.remove(index);
            return false;
        }
        kept.iter()
            .any(|message| message.tag == tag::COPY_IN_RESPONSE)
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.all.remove(index);
    }
}

/// How many bytes may be read ahead of what is next.
const KEPT: usize = 1024 * 1024;

impl Index<usize> for PendingRequests {
    type Output = PendingRequest;

    fn index(&self, index: usize) -> &PendingRequest {
        &self.all[index]
    }
}

impl IndexMut<usize> for PendingRequests {
    fn index_mut(&mut self, index: usize) -> &mut PendingRequest {
        &mut self.all[index]
    }
}
