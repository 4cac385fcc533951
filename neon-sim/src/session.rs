//! What the messages that go by tell about a session.

use std::sync::{Arc, Mutex};

use crate::backend::Canceller;
use crate::compute::{Busy, Compute};
use crate::counters::Tally;
use crate::faults::locked;
use crate::frames::Frames;

/// An established session, as far as its messages tell.
pub(crate) struct Session {
    pub(crate) pooled: bool,
    pub(crate) canceller: Option<Canceller>,
    tally: Arc<Tally>,
    compute: Arc<Compute>,
    state: Mutex<State>,
}

struct State {
    up: Frames,
    down: Frames,
    /// ReadyForQuery messages that the server owes.
    owed: usize,
    /// Whether messages have been sent that no Sync has followed yet.
    unsynced: bool,
    simple: bool,
    in_transaction: bool,
    server_has_spoken: bool,
    delivering: bool,
    /// Present while the session keeps the compute awake.
    busy: Option<Busy>,
}

impl Session {
    /// A session whose client is about to see its first ReadyForQuery.
    pub(crate) fn new(
        pooled: bool,
        canceller: Option<Canceller>,
        tally: Arc<Tally>,
        compute: Arc<Compute>,
    ) -> Self {
        Self {
            pooled,
            canceller,
            tally,
            compute,
            state: Mutex::new(State {
                up: Frames::default(),
                down: Frames::default(),
                owed: 0,
                unsynced: false,
                simple: false,
                in_transaction: false,
                server_has_spoken: true,
                delivering: false,
                busy: None,
            }),
        }
    }

    /// Takes note of what the client sends.
    pub(crate) fn sent_by_client(&self, bytes: &[u8]) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        self.tally.bytes_in.add(bytes.len() as u64);
        if std::mem::take(&mut state.server_has_spoken) {
            self.tally.flights.add(1);
        }
        let mut active = false;
        state.up.feed(bytes, |tag, first| {
            active |= tag != b'X';
            match tag {
                b'Q' | b'F' => {
                    state.owed += 1;
                    state.simple = true;
                }
                b'S' => {
                    state.owed += 1;
                    state.unsynced = false;
                }
                b'B' | b'C' | b'D' | b'E' | b'H' | b'P' => {
                    state.unsynced = true;
                    state.simple = false;
                }
                // A server in copy mode ignores the Sync that came with the statement.
                b'c' | b'f' => state.owed = usize::from(state.simple),
                b'X' => self.tally.terminates.add(1),
                _ => {}
            }
            match (tag, first) {
                (b'Q' | b'E', _) => self.tally.statements.add(1),
                (b'P', Some(1..)) => self.tally.named_parses.add(1),
                _ => {}
            }
        });
        if active {
            self.compute.touch();
        }
        self.settle(state);
    }

    /// Takes note of what the server sends.
    pub(crate) fn sent_by_server(&self, bytes: &[u8]) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        self.tally.bytes_out.add(bytes.len() as u64);
        state.server_has_spoken = true;
        state.delivering = true;
        state.down.feed(bytes, |tag, first| {
            if tag == b'Z' {
                state.owed = state.owed.saturating_sub(1);
                state.in_transaction = first != Some(b'I');
            }
        });
        self.settle(state);
    }

    /// What the server has sent is with the client.
    pub(crate) fn delivered(&self) {
        locked(&self.state).delivering = false;
    }

    fn settle(&self, state: &mut State) {
        let busy = state.owed > 0 || state.unsynced || state.in_transaction;
        if !busy {
            state.busy = None;
        } else if state.busy.is_none() {
            state.busy = Some(self.compute.busy());
        }
    }

    /// Whether the server has not yet answered everything.
    pub(crate) fn is_running(&self) -> bool {
        let state = locked(&self.state);
        state.owed > 0 || state.unsynced
    }

    /// Whether the client can be sent a message of the proxy's own.
    pub(crate) fn between_messages(&self) -> bool {
        let state = locked(&self.state);
        !state.delivering && state.down.between_messages()
    }

    /// Stops keeping the compute awake.
    pub(crate) fn forget(&self) {
        locked(&self.state).busy = None;
    }
}
