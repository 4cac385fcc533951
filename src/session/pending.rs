//! [`PendingRequests`]: the requests that were sent, in the order of their responses.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use crate::protocol::{Message, tag};

/// The requests whose responses are outstanding or not yet consumed, in their order.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    all: VecDeque<PendingRequest>,
    /// How many bytes of messages are buffered.
    buffered: usize,
    /// Counts the buffered messages that were taken.
    taken: u64,
}

/// A request that was sent, until its response is consumed.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) id: u64,
    pub(super) owner: Owner,
    /// How many commands of the preamble are outstanding.
    pub(super) preamble: usize,
    /// How many of them are outstanding up to and including BEGIN.
    pub(super) begin_end: usize,
    /// Whether the request uses the simple protocol.
    pub(super) simple: bool,
    /// Whether the request is one command, so that ReadyForQuery follows the first CommandComplete.
    pub(super) single: bool,
    pub(super) outcome: Outcome,
    /// Whether the process of the server is to name itself.
    pub(super) asks_process: bool,
    /// Whether the session cannot go on without it.
    pub(super) is_required: bool,
    /// Whether the caller copies data.
    pub(super) copies: bool,
    pub(super) copy_in: CopyIn,
    /// Whether ReadyForQuery was read.
    pub(super) is_answered: bool,
    /// The end of the request, as an offset in all bytes of the stream.
    pub(super) end: u64,
    /// The messages that were read while somebody waited for a response behind this one.
    pub(super) buffered: VecDeque<Message>,
}

/// How far a request has come that copies data to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyIn {
    /// The server has not asked for data, or has confirmed that it is copied.
    None,
    /// The server waits for data: it owes nothing.
    TakesData,
    /// The end of the data was sent.
    DataEnded,
}

/// What the server has reported about the outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Unknown,
    Reported,
    /// A COMMIT is complete: the end of the session afterwards does not undo it.
    Committed,
}

/// Who waits for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The caller waits.
    Waiting,
    /// The caller has gone without a result.
    Abandoned,
    /// The caller has its result, and has gone without the rest.
    Satisfied,
}

impl PendingRequest {
    pub(super) fn of(owner: Owner) -> Self {
        Self {
            id: 0,
            owner,
            preamble: 0,
            begin_end: 0,
            simple: false,
            single: false,
            outcome: Outcome::Unknown,
            asks_process: false,
            is_required: false,
            copies: false,
            copy_in: CopyIn::None,
            is_answered: false,
            end: 0,
            buffered: VecDeque::new(),
        }
    }
}

impl PendingRequests {
    pub(super) fn push(&mut self, request: PendingRequest) {
        self.all.push_back(request);
    }

    /// Buffers a message for the owner of its request.
    pub(super) fn buffer(&mut self, index: usize, message: Message) {
        self.buffered += message.len();
        self.all[index].buffered.push_back(message);
    }

    /// Returns whether so much is buffered that only the owner of the current response may read.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.buffered >= READ_AHEAD
            && self
                .current()
                .is_some_and(|next| next.owner == Owner::Waiting)
    }

    /// Returns how many buffered messages were taken so far, if there is no room to read ahead for request `id`.
    #[inline]
    pub(super) fn stalled(&self, id: Option<u64>) -> Option<u64> {
        if self.buffered < READ_AHEAD {
            return None;
        }
        let next = self.current().map(|next| next.id);
        (self.is_full() && next != id).then_some(self.taken)
    }

    /// Returns the request that the server answers next.
    #[inline]
    pub(super) fn current(&self) -> Option<&PendingRequest> {
        self.outstanding().next()
    }

    /// Returns the index of the request that the server answers next.
    #[inline]
    pub(super) fn current_index(&self) -> Option<usize> {
        self.all.iter().position(|request| !request.is_answered)
    }

    /// Returns whether any response is outstanding.
    #[inline]
    pub(super) fn is_outstanding(&self) -> bool {
        self.current().is_some()
    }

    /// Returns whether more than one response is outstanding.
    pub(super) fn are_several_outstanding(&self) -> bool {
        self.outstanding().nth(1).is_some()
    }

    /// Returns whether the outcome of a preamble is outstanding.
    pub(super) fn has_unconfirmed_preamble(&self) -> bool {
        self.outstanding().any(|request| request.preamble > 0)
    }

    /// Returns how many requests are outstanding that end within the first `written` bytes of the stream.
    pub(super) fn outstanding_within(&self, written: u64) -> usize {
        let is_whole = |request: &&PendingRequest| request.end <= written;
        self.outstanding().filter(is_whole).count()
    }

    /// Returns whether a COPY is outstanding.
    pub(super) fn is_copying(&self) -> bool {
        self.outstanding().any(|request| request.copies)
    }

    /// Returns whether a response is outstanding that nobody waits for.
    pub(super) fn has_orphan(&self) -> bool {
        self.outstanding()
            .any(|request| request.owner != Owner::Waiting)
    }

    /// Returns whether a response is outstanding whose caller has gone without a result.
    pub(super) fn is_abandoned(&self) -> bool {
        self.outstanding()
            .any(|request| request.owner == Owner::Abandoned)
    }

    /// Returns whether the caller of request `id` has its result, and has gone without the rest.
    pub(super) fn is_satisfied(&self, id: u64) -> bool {
        let is_satisfied =
            |request: &PendingRequest| request.id == id && request.owner == Owner::Satisfied;
        self.all.iter().any(is_satisfied)
    }

    /// Returns whether somebody waits for a response behind that of request `id`.
    pub(super) fn is_waited_for(&self, id: u64) -> bool {
        let is_waiting =
            |request: &PendingRequest| request.id > id && request.owner == Owner::Waiting;
        self.all.iter().any(is_waiting)
    }

    /// Returns whether request `id` was a COMMIT that the server has acknowledged.
    pub(super) fn is_committed(&self, id: u64) -> bool {
        let mut all = self.all.iter();
        all.any(|request| request.id == id && request.outcome == Outcome::Committed)
    }

    fn outstanding(&self) -> impl Iterator<Item = &PendingRequest> {
        self.all.iter().filter(|request| !request.is_answered)
    }

    /// Takes the next buffered message of request `id`.
    #[inline]
    pub(super) fn take_buffered(&mut self, id: u64) -> Option<Message> {
        if self.buffered == 0 {
            return None;
        }
        let index = self.all.iter().position(|request| request.id == id)?;
        let request = &mut self.all[index];
        let message = request.buffered.pop_front()?;
        self.buffered -= message.len();
        self.taken += 1;
        if request.is_answered && request.buffered.is_empty() {
            self.all.remove(index);
        }
        Some(message)
    }

    /// Returns request `id` if the server may still want data of it.
    pub(super) fn outstanding_mut(&mut self, id: u64) -> Option<&mut PendingRequest> {
        let mut all = self.all.iter_mut();
        all.find(|request| request.id == id && !request.is_answered)
    }

    /// Notes that nobody waits for the response to request `id` any more. Returns whether the server waits for data that
    /// will not come.
    pub(super) fn abandon(&mut self, id: u64, is_satisfied: bool) -> bool {
        let Some(index) = self.all.iter().position(|request| request.id == id) else {
            return false;
        };
        let request = &mut self.all[index];
        let buffered = std::mem::take(&mut request.buffered);
        self.buffered -= buffered.iter().map(Message::len).sum::<usize>();
        request.owner = if is_satisfied {
            Owner::Satisfied
        } else {
            Owner::Abandoned
        };
        if request.is_answered {
            self.all.remove(index);
            return false;
        }
        buffered
            .iter()
            .any(|message| message.tag == tag::COPY_IN_RESPONSE)
    }

    #[inline]
    pub(super) fn remove(&mut self, index: usize) {
        self.all.remove(index);
    }
}

/// How many bytes may be buffered before their owner has to take them.
const READ_AHEAD: usize = 1024 * 1024;

impl Index<usize> for PendingRequests {
    type Output = PendingRequest;

    #[inline]
    fn index(&self, index: usize) -> &PendingRequest {
        &self.all[index]
    }
}

impl IndexMut<usize> for PendingRequests {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut PendingRequest {
        &mut self.all[index]
    }
}
