//! A connection that requests come on.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::control::counters::Tally;
use crate::proxy::turns::Turns;
use crate::sync::locked;

/// A connection that requests come on, and its round trips.
///
/// With HTTP/1.1 those are the turns of its bytes. With HTTP/2 each side also speaks when nobody waits for it, so a request is
/// one if an answer has been given since the last that was.
#[derive(Debug)]
pub(crate) struct Caller {
    turns: Arc<Turns>,
    /// With HTTP/2, the turns up to the first request.
    first: Option<u64>,
    state: Mutex<State>,
    end: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_counted: bool,
    has_answer: bool,
}

impl Caller {
    /// Returns a connection whose TLS handshake has just ended.
    pub(crate) fn new(turns: &Arc<Turns>, is_http_2: bool) -> Self {
        Self {
            turns: Arc::clone(turns),
            first: is_http_2.then(|| turns.up_to_now()),
            state: Mutex::default(),
            end: Notify::new(),
        }
    }

    /// Counts a request.
    pub(super) fn count_at(&self, tally: &Arc<Tally>) {
        tally.requests.add(1);
        let mut state = locked(&self.state);
        let is_first = !std::mem::replace(&mut state.is_counted, true);
        let has_answer = std::mem::take(&mut state.has_answer);
        if is_first {
            tally.https_connections.add(1);
        }
        match (self.first, is_first) {
            (None, true) => self.turns.count_as(tally, |tally| &tally.flights),
            (None, false) => {}
            (Some(turns), true) => tally.flights.add(turns),
            (Some(_), false) => tally.flights.add(has_answer.into()),
        }
    }

    pub(super) fn answered(&self) {
        locked(&self.state).has_answer = true;
    }

    /// Ends the connection.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    /// Waits until the connection is to end.
    pub(crate) async fn until_ended(&self) {
        self.end.notified().await;
    }
}
