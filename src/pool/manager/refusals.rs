//! [`Refusals`]: what a manager answers from memory.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::connect::ConnectError;
use crate::util::clock;
use crate::util::lock;

/// The server's last refusal, which takes the place of further connects: a pool connects again and again, r2d2 even
/// if nobody waits any more, and each login may wake a compute.
///
/// It does so for as long as the server has been refusing before, so that whoever mends the cause waits for no longer than
/// it took to mend it; for a moment at most if it may pass by itself. It is forgotten if nobody asks for long.
#[derive(Debug)]
pub(super) struct Refusals {
    last: Mutex<Option<Refusal>>,
    /// The longest time between two connects.
    longest: Duration,
}

#[derive(Debug)]
struct Refusal {
    error: ConnectError,
    generation: u64,
    since: Instant,
    until: Instant,
    /// The longest time between two connects.
    longest: Duration,
}

impl Refusals {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            last: Mutex::default(),
            longest,
        }
    }

    /// Returns the refusal that takes the place of a connect. Once its time is over, the first to ask is to connect, and
    /// finds out for the others.
    pub(super) fn recall(&self, generation: u64, now: Instant) -> Option<ConnectError> {
        let mut last = lock(&self.last);
        let refusal = last.as_mut().filter(|last| last.generation == generation)?;
        let left = refusal.until.saturating_duration_since(now);
        if left.is_zero() {
            // What has become of it meanwhile is not known.
            if now >= clock::after(refusal.until, self.longest) {
                refusal.since = now;
            }
            refusal.until = next(refusal.since, now, refusal.longest);
            return None;
        }
        Some(refusal.error.to_remembered(left))
    }

    /// Records how a connect has failed; `None` if it succeeded.
    pub(super) fn record(&self, generation: u64, failure: Option<&ConnectError>, now: Instant) {
        let mut last = lock(&self.last);
        let before = last.take().filter(|last| last.generation == generation);
        let refusal = failure.and_then(|error| Some((error, error.holds_for(self.longest)?)));
        *last = refusal.map(|(error, longest)| {
            let since = before.map_or(now, |before| before.since);
            Refusal {
                error: error.clone(),
                generation,
                since,
                until: next(since, now, longest),
                longest,
            }
        });
    }
}

/// Returns when the next connect is due, if the server has been refusing since `since`.
fn next(since: Instant, now: Instant, longest: Duration) -> Instant {
    let refusing = now.saturating_duration_since(since);
    clock::after(now, refusing.max(SHORTEST).min(longest))
}

/// The shortest time between two connects, as in the pool.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Duration = Duration::from_secs(15 * 60);

    fn refused() -> ConnectError {
        ConnectError::of_server_error("database \"d\" does not exist".to_owned(), Some("3D000"))
    }

    #[test]
    fn a_refusal_holds_for_as_long_as_the_server_has_been_refusing() {
        let refusals = Refusals::new(QUARTER);
        let began = Instant::now();
        let at = |seconds: u64| clock::after(began, Duration::from_secs(seconds));
        assert!(refusals.recall(0, at(0)).is_none());
        let mut connects = Vec::new();
        // As r2d2 asks, for a day.
        for second in (0..24 * 3600).step_by(15) {
            if refusals.recall(0, at(second)).is_none() {
                assert!(refusals.recall(0, at(second)).is_some() || second == 0);
                refusals.record(0, Some(&refused()), at(second));
                connects.push(second);
            }
        }
        assert_eq!(connects[..5], [0, 15, 30, 60, 120]);
        let last = connects.len() - 1;
        assert_eq!(connects[last] - connects[last - 1], 15 * 60);
        assert!(connects.len() < 106, "{connects:?}");
    }

    #[test]
    fn a_refusal_that_may_pass_by_itself_holds_for_a_moment() {
        let words = "Control plane request failed: too many requests";
        let error = ConnectError::of_server_error(words.to_owned(), Some("XX000"));
        let refusals = Refusals::new(QUARTER);
        let mut now = Instant::now();
        for _ in 0..10 {
            refusals.record(0, Some(&error), now);
            now = clock::after(now, Duration::from_secs(10));
            assert!(refusals.recall(0, now).is_none());
        }
        refusals.record(0, Some(&error), now);
        let nearly = clock::after(now, Duration::from_secs(9));
        let recalled = refusals.recall(0, nearly).unwrap().to_string();
        assert!(recalled.contains("again in 2 s"), "{recalled}");
        assert!(!error.to_string().contains("memory"));
    }

    #[test]
    fn a_refusal_that_nobody_has_renewed_for_long_begins_anew() {
        let refusals = Refusals::new(QUARTER);
        let mut now = Instant::now();
        for _ in 0..2 {
            refusals.record(0, Some(&refused()), now);
            now = clock::after(now, QUARTER * 3);
            assert!(refusals.recall(0, now).is_none());
        }
        refusals.record(0, Some(&refused()), now);
        let soon = clock::after(now, SHORTEST);
        assert!(refusals.recall(0, soon).is_none());
    }

    #[test]
    fn what_may_pass_and_what_has_passed_is_forgotten() {
        let now = Instant::now();
        let transient = ConnectError::of_server_error(
            "the database system is starting up".to_owned(),
            Some("57P03"),
        );
        for end in [Some(&transient), None] {
            let refusals = Refusals::new(QUARTER);
            refusals.record(0, Some(&refused()), now);
            assert!(refusals.recall(0, now).is_some());
            refusals.record(0, end, now);
            assert!(refusals.recall(0, now).is_none());
        }
        let refusals = Refusals::new(QUARTER);
        refusals.record(0, Some(&refused()), now);
        assert!(refusals.recall(1, now).is_none(), "a generation has ended");
    }
}
