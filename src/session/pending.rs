//! [`PendingRequests`]: the requests that were sent, in the order of their responses.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use crate::protocol::{Message, tag};

/// The requests whose responses are outstanding or not yet consumed, in their order.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    /// In the order of their IDs.
    all: VecDeque<PendingRequest>,
    /// How many of the first are answered: the responses come in this order.
    answered: usize,
    /// Where the last of them ends in all bytes of the stream.
    answered_end: u64,
    /// Whether one of them may keep others from being sent: looking at all for each would be quadratic.
    may_block: bool,
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
    /// The end of the request, as an offset in all bytes of the stream; behind all of them while it is held back.
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
            end: 0,
            buffered: VecDeque::new(),
        }
    }

    /// Returns whether no other request may be sent behind this one, which is outstanding.
    ///
    /// Behind a BEGIN that fails, it would run without a transaction; behind an abandoned statement, perhaps inside one. And
    /// PgBouncer miscounts the responses if a request follows a COPY before the COPY has ended.
    fn blocks(&self) -> bool {
        self.preamble > 0 || self.copies || self.owner == Owner::Abandoned
    }
}

impl PendingRequests {
    pub(super) fn push(&mut self, request: PendingRequest) {
        self.may_block |= request.blocks();
        self.all.push_back(request);
    }

    /// Buffers a message for the owner of its request.
    pub(super) fn buffer(&mut self, index: usize, message: Message) {
        self.buffered += message.len();
        self.all[index].buffered.push_back(message);
    }

    /// Returns whether so much is buffered that only the owner of the current response may read, who has some of it to take.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.buffered >= READ_AHEAD
            && self
                .current()
                .is_some_and(|next| next.owner == Owner::Waiting && !next.buffered.is_empty())
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
        self.all.get(self.answered)
    }

    /// Returns the index of the request that the server answers next.
    #[inline]
    pub(super) fn current_index(&self) -> Option<usize> {
        self.is_outstanding().then_some(self.answered)
    }

    /// Returns whether any response is outstanding.
    #[inline]
    pub(super) fn is_outstanding(&self) -> bool {
        self.answered < self.all.len()
    }

    /// Returns how many responses are outstanding.
    #[inline]
    pub(super) fn outstanding_len(&self) -> usize {
        self.all.len() - self.answered
    }

    /// Notes where a request ends in all bytes of the stream, behind which there are so many others.
    pub(super) fn set_end(&mut self, behind: usize, end: u64) {
        let index = self.all.len() - behind - 1;
        self.all[index].end = end;
    }

    /// Returns whether an outstanding request keeps others from being sent.
    pub(super) fn is_blocked(&mut self) -> bool {
        self.may_block = self.may_block && self.outstanding().any(PendingRequest::blocks);
        self.may_block
    }

    /// Notes that the ReadyForQuery of the request was read that the server was to answer next.
    pub(super) fn set_answered(&mut self) {
        self.answered_end = self.all[self.answered].end;
        self.answered += 1;
    }

    /// Returns whether the ReadyForQuery of a request was read.
    #[inline]
    pub(super) fn is_answered(&self, index: usize) -> bool {
        index < self.answered
    }

    /// Returns how many requests are outstanding that end within the first `written` bytes of the stream.
    pub(super) fn outstanding_within(&self, written: u64) -> usize {
        let is_whole = |request: &&PendingRequest| request.end <= written;
        self.outstanding().filter(is_whole).count()
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
        let request = self.position(id).map(|index| &self.all[index]);
        request.is_some_and(|request| request.owner == Owner::Satisfied)
    }

    /// Returns whether somebody waits for a response behind that of request `id`.
    pub(super) fn is_waited_for(&self, id: u64) -> bool {
        let is_waiting =
            |request: &PendingRequest| request.id > id && request.owner == Owner::Waiting;
        self.all.iter().any(is_waiting)
    }

    /// Returns whether request `id` was a COMMIT that the server has acknowledged.
    pub(super) fn is_committed(&self, id: u64) -> bool {
        let request = self.position(id).map(|index| &self.all[index]);
        request.is_some_and(|request| request.outcome == Outcome::Committed)
    }

    /// Returns where request `id` ends in all bytes of the stream.
    pub(super) fn end(&self, id: u64) -> Option<u64> {
        Some(self.all[self.position(id)?].end)
    }

    /// Returns where the last request ends that is answered.
    pub(super) fn answered_end(&self) -> u64 {
        self.answered_end
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.all
            .binary_search_by_key(&id, |request| request.id)
            .ok()
    }

    fn outstanding(&self) -> impl Iterator<Item = &PendingRequest> {
        self.all.range(self.answered..)
    }

    /// Takes the next buffered message of request `id`.
    #[inline]
    pub(super) fn take_buffered(&mut self, id: u64) -> Option<Message> {
        if self.buffered == 0 {
            return None;
        }
        let index = self.position(id)?;
        let request = &mut self.all[index];
        let message = request.buffered.pop_front()?;
        let is_last = request.buffered.is_empty();
        self.buffered -= message.len();
        self.taken += 1;
        if is_last && self.is_answered(index) {
            self.remove(index);
        }
        Some(message)
    }

    /// Returns request `id` if the server may still want data of it.
    pub(super) fn outstanding_mut(&mut self, id: u64) -> Option<&mut PendingRequest> {
        let index = self.position(id)?;
        (!self.is_answered(index)).then(|| &mut self.all[index])
    }

    /// Notes that nobody waits for the response to request `id` any more. Returns whether the server waits for data that
    /// will not come.
    pub(super) fn abandon(&mut self, id: u64, is_satisfied: bool) -> bool {
        let Some(index) = self.position(id) else {
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
        self.may_block = true;
        if self.is_answered(index) {
            self.remove(index);
            return false;
        }
        buffered
            .iter()
            .any(|message| message.tag == tag::COPY_IN_RESPONSE)
    }

    #[inline]
    pub(super) fn remove(&mut self, index: usize) {
        if self.is_answered(index) {
            self.answered -= 1;
        }
        self.all.remove(index);
        if self.all.is_empty() && self.all.capacity() > KEPT {
            self.all = VecDeque::new();
        }
    }
}

/// For how many requests the memory is kept when all are answered.
const KEPT: usize = 64;

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// What the counts and the order of IDs stand for, looked up one by one.
    #[derive(Default)]
    struct Plain(Vec<(u64, bool)>);

    impl Plain {
        fn current(&self) -> Option<u64> {
            let mut all = self.0.iter();
            all.find(|(_, is_answered)| !is_answered).map(|(id, _)| *id)
        }

        fn remove(&mut self, id: u64) {
            self.0.retain(|(known, _)| *known != id);
        }
    }

    #[test]
    fn requests_are_found_whatever_has_gone_before() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut requests, mut plain) = (PendingRequests::default(), Plain::default());
        let mut unread = 0;
        for id in 0..20_000 {
            let (waits, preamble) = (random.u8(..4) > 0, usize::from(random.u8(..8) == 0));
            let owner = if waits {
                Owner::Waiting
            } else {
                Owner::Satisfied
            };
            requests.push(PendingRequest {
                id,
                preamble,
                ..PendingRequest::of(owner)
            });
            plain.0.push((id, false));
            for _ in 0..random.u8(..4) {
                let known = random.usize(..plain.0.len().max(1));
                let any = plain.0.get(known).map(|(id, _)| *id);
                match (random.u8(..3), requests.current_index()) {
                    (0, Some(index)) => {
                        let request = &mut requests[index];
                        let current = request.id;
                        request.preamble = 0;
                        let waits = request.owner == Owner::Waiting;
                        if waits {
                            requests.buffer(index, Message::ready());
                            unread += 1;
                        }
                        requests.set_answered();
                        match waits {
                            true => plain.0.iter_mut().for_each(|one| one.1 |= one.0 == current),
                            false => {
                                requests.remove(index);
                                plain.remove(current);
                            }
                        }
                    }
                    (1, _) => {
                        let taken = any.and_then(|id| Some((id, requests.take_buffered(id)?)));
                        if let Some((id, _)) = taken {
                            unread -= 1;
                            plain.remove(id);
                        }
                    }
                    (2, _) => {
                        if let Some(id) = any {
                            let was_answered = plain.0[known].1;
                            requests.abandon(id, random.bool());
                            if was_answered {
                                unread -= 1;
                                plain.remove(id);
                            }
                        }
                    }
                    _ => {}
                }
                let ids = requests.all.iter().map(|request| request.id);
                assert!(ids.eq(plain.0.iter().map(|(id, _)| *id)));
                assert_eq!(requests.current().map(|next| next.id), plain.current());
                assert_eq!(requests.buffered, unread * Message::ready().len());
                let blocks = requests.outstanding().any(PendingRequest::blocks);
                assert_eq!(requests.is_blocked(), blocks);
            }
        }
    }

    #[test]
    fn a_crowd_leaves_little_memory_behind() {
        let mut requests = PendingRequests::default();
        for id in 0..5000 {
            requests.push(PendingRequest {
                id,
                ..PendingRequest::of(Owner::Waiting)
            });
        }
        while requests.is_outstanding() {
            requests.set_answered();
            requests.remove(0);
        }
        assert!(requests.all.capacity() <= KEPT);
    }

    #[test]
    fn as_much_is_read_ahead_as_there_is_room_for() {
        let mut requests = PendingRequests::default();
        for id in [3, 7, 9] {
            requests.push(PendingRequest {
                id,
                ..PendingRequest::of(Owner::Waiting)
            });
        }
        let row = || Message {
            tag: tag::DATA_ROW,
            body: Bytes::from(vec![0; READ_AHEAD]),
        };
        assert_eq!(requests.stalled(Some(7)), None);
        requests.buffer(0, row());
        assert_eq!(requests.stalled(Some(7)), Some(0));
        assert_eq!(requests.stalled(Some(3)), None);
        assert!(requests.take_buffered(7).is_none());
        // The owner of the next response has nothing to take, and keeps nobody waiting.
        requests.set_answered();
        assert_eq!(requests.stalled(Some(9)), None);
        requests.buffer(1, row());
        assert_eq!(requests.stalled(Some(9)), Some(0));
        assert!(requests.take_buffered(3).is_some());
        assert!(requests.take_buffered(7).is_some());
        assert_eq!(requests.stalled(Some(9)), None);
    }
}
