//! The round trips of a connection, counted on its TCP bytes.

use std::sync::{Arc, Mutex};

use crate::control::counters::{Count, Tally};
use crate::sync::locked;

/// Counts how often a client speaks after the server has: once for each answer that it has waited for.
///
/// Bytes count when they pass the socket, so that whatever a client sends without waiting is one turn.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    server_has_spoken: bool,
    total: u64,
    /// The turns that no endpoint is known for yet.
    unclaimed: u64,
    claim: Option<(Arc<Tally>, Select)>,
}

/// Chooses one of an endpoint's counters.
type Select = fn(&Tally) -> &Count;

impl Default for Turns {
    fn default() -> Self {
        Self(Mutex::new(State {
            // Connecting was TCP's own round trip.
            server_has_spoken: true,
            total: 0,
            unclaimed: 0,
            claim: None,
        }))
    }
}

impl Turns {
    /// Notes bytes of the client.
    pub(super) fn client_speaks(&self) {
        let mut state = locked(&self.0);
        if !std::mem::take(&mut state.server_has_spoken) {
            return;
        }
        state.total += 1;
        match &state.claim {
            Some((tally, select)) => select(tally).add(1),
            None => state.unclaimed += 1,
        }
    }

    /// Notes bytes for the client.
    pub(super) fn server_speaks(&self) {
        locked(&self.0).server_has_spoken = true;
    }

    /// Notes that the client does not wait for what it was sent last.
    pub(super) fn nobody_waits(&self) {
        locked(&self.0).server_has_spoken = false;
    }

    /// Returns how many turns the client has taken.
    pub(super) fn total(&self) -> u64 {
        locked(&self.0).total
    }

    /// Returns whether the server has been silent since the client's last bytes.
    pub(super) fn is_clients(&self) -> bool {
        !locked(&self.0).server_has_spoken
    }

    /// Returns how many turns a client takes that speaks now, of those that are not counted yet.
    pub(crate) fn up_to_now(&self) -> u64 {
        let state = locked(&self.0);
        state.unclaimed + u64::from(state.server_has_spoken)
    }

    /// Counts the turns that are not counted yet, and those from now on, with this counter.
    pub(crate) fn count_as(&self, tally: &Arc<Tally>, select: Select) {
        let mut state = locked(&self.0);
        select(tally).add(std::mem::take(&mut state.unclaimed));
        state.claim = Some((Arc::clone(tally), select));
    }
}
