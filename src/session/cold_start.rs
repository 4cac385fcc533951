//! [`LoginClock`]: whether a login has woken a compute, told by how long its last answer took.

use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::tag;

/// The times of a login: a proxy that wakes a compute does so between the client's last word and the
/// first ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct LoginClock {
    asked: Option<Instant>,
    round_trip: Option<Duration>,
    done: bool,
}

impl LoginClock {
    pub(super) fn sent(&mut self, tag: u8) {
        if !self.done && matches!(tag, tag::frontend::STARTUP | tag::frontend::PASSWORD) {
            self.asked = Some(Instant::now());
        }
    }

    /// Says at the end of the login whether the compute was cold.
    pub(super) fn received(&mut self, tag: u8) -> Option<bool> {
        let waited = self.asked?.elapsed();
        match tag {
            tag::AUTHENTICATION => {
                let shortest = self.round_trip.unwrap_or(waited).min(waited);
                self.round_trip = Some(shortest);
                None
            }
            tag::READY_FOR_QUERY => {
                self.asked = None;
                self.done = true;
                Some(waited >= COLD.saturating_add(self.round_trip.unwrap_or_default()))
            }
            _ => None,
        }
    }
}

/// A login that is this much slower than a round trip has met a sleeping compute: Neon speaks of a few
/// hundred milliseconds, a warm login takes a few.
const COLD: Duration = Duration::from_millis(100);
