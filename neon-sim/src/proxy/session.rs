//! A session's state, as the messages that pass tell it.

use std::sync::{Arc, Mutex};

use super::backend::Canceller;
use crate::control::compute::{Busy, Compute};
use crate::control::counters::Tally;
use crate::control::faults::{Direction, Faults};
use crate::protocol::frames::Frames;
use crate::protocol::tag::{backend, frontend};
use crate::sync::locked;

/// An established session's state, as its messages tell it.
pub(super) struct Session {
    pub(super) pooled: bool,
    pub(super) canceller: Option<Canceller>,
    tally: Arc<Tally>,
    compute: Arc<Compute>,
    faults: Arc<Faults>,
    number: u64,
    state: Mutex<State>,
}

struct State {
    up: Frames,
    down: Frames,
    /// How many ReadyForQuery messages the server owes.
    owed: usize,
    /// Whether a message of the extended protocol has been sent and no Sync since.
    unsynced: bool,
    /// Whether the last statement came as a Query.
    simple: bool,
    in_transaction: bool,
    /// Whether bytes of the server are on their way to the client.
    delivering: bool,
    /// `Some` while the session keeps the compute awake.
    busy: Option<Busy>,
}

impl Session {
    /// Returns the state of a session whose first ReadyForQuery is about to be sent.
    pub(super) fn new(
        pooled: bool,
        canceller: Option<Canceller>,
        tally: Arc<Tally>,
        compute: Arc<Compute>,
        faults: Arc<Faults>,
    ) -> Self {
        Self {
            pooled,
            canceller,
            tally,
            compute,
            number: faults.enter(),
            faults,
            state: Mutex::new(State {
                up: Frames::default(),
                down: Frames::default(),
                owed: 0,
                unsynced: false,
                simple: false,
                in_transaction: false,
                delivering: false,
                busy: None,
            }),
        }
    }

    /// Notes what the client sends.
    pub(super) fn sent_by_client(&self, bytes: &[u8]) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        self.tally.bytes_in.add(bytes.len() as u64);
        let mut active = false;
        state.up.feed(bytes, |tag, first| {
            active |= tag != frontend::TERMINATE;
            match tag {
                frontend::QUERY | frontend::FUNCTION_CALL => {
                    state.owed += 1;
                    state.simple = true;
                }
                frontend::SYNC => {
                    state.owed += 1;
                    state.unsynced = false;
                }
                frontend::BIND
                | frontend::CLOSE
                | frontend::DESCRIBE
                | frontend::EXECUTE
                | frontend::FLUSH
                | frontend::PARSE => {
                    state.unsynced = true;
                    state.simple = false;
                }
                // A server in copy mode ignores the Sync that came with the statement.
                frontend::COPY_DONE | frontend::COPY_FAIL => {
                    state.owed = usize::from(state.simple);
                }
                frontend::TERMINATE => self.tally.terminates.add(1),
                _ => {}
            }
            match (tag, first) {
                (frontend::QUERY | frontend::EXECUTE, _) => self.tally.statements.add(1),
                (frontend::PARSE, Some(1..)) => self.tally.named_parses.add(1),
                _ => {}
            }
        });
        if active {
            self.compute.touch();
        }
        self.keep_awake(state);
    }

    /// Notes what the server sends.
    pub(super) fn sent_by_server(&self, bytes: &[u8]) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        self.tally.bytes_out.add(bytes.len() as u64);
        state.delivering = true;
        state.down.feed(bytes, |tag, first| {
            if tag == backend::READY_FOR_QUERY {
                state.owed = state.owed.saturating_sub(1);
                state.in_transaction = first != Some(backend::IDLE);
            }
        });
        self.keep_awake(state);
    }

    /// Notes that the client has been sent everything.
    pub(super) fn delivered(&self) {
        locked(&self.state).delivering = false;
    }

    /// Keeps the compute awake while a statement or a transaction is under way.
    fn keep_awake(&self, state: &mut State) {
        let busy = state.owed > 0 || state.unsynced || state.in_transaction;
        if !busy {
            state.busy = None;
        } else if state.busy.is_none() {
            state.busy = Some(self.compute.busy());
        }
    }

    /// Returns whether bytes are lost in this direction.
    pub(super) fn loses(&self, direction: Direction) -> bool {
        self.faults.loses(direction, self.number)
    }

    /// Returns whether a statement is under way.
    pub(super) fn is_running(&self) -> bool {
        let state = locked(&self.state);
        state.owed > 0 || state.unsynced
    }

    /// Returns whether the proxy can send the client a message of its own.
    pub(super) fn between_messages(&self) -> bool {
        let state = locked(&self.state);
        !state.delivering && state.down.between_messages()
    }

    /// Keeps the compute awake no longer.
    pub(super) fn let_sleep(&self) {
        locked(&self.state).busy = None;
    }
}
