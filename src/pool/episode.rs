//! [`Episode`]: for how long a statement has waited in silence, and when it is looked after. [`Looks`]: how often a pool
//! makes connections for it. They send nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::util::clock::Moment;
use crate::util::lock;

/// The silence of one connection while it owes a response.
#[derive(Debug, Default)]
pub(crate) struct Episode {
    /// When the response was first seen to be outstanding, and how many were complete then.
    owed: Option<(Moment, u64)>,
    /// The length of the silence after which the statement is looked after next.
    next: Duration,
}

impl Episode {
    /// Notes what is seen at `now`: how many responses are complete if one is outstanding (`unanswered`), and for how
    /// long the session was `still`. Returns how long the silence is.
    pub(super) fn observe(
        &mut self,
        unanswered: Option<u64>,
        still: Duration,
        now: &Moment,
        threshold: Duration,
    ) -> Duration {
        let Some(responses) = unanswered else {
            self.owed = None;
            return Duration::ZERO;
        };
        let since = match self.owed {
            Some((since, known)) if known == responses => since,
            _ => {
                self.owed = Some((*now, responses));
                *now
            }
        };
        // A clock that is set is no silence.
        let waited = now.monotonic().saturating_duration_since(since.monotonic());
        let silence = still.min(waited);
        if silence < threshold {
            self.next = threshold;
        }
        silence
    }

    /// Returns whether the statement is to be looked after.
    pub(super) fn is_due(&self, silence: Duration) -> bool {
        self.owed.is_some() && silence >= self.next
    }

    /// Notes that the statement was looked after: next when the silence is twice as long, but in [`LONGEST`].
    pub(super) fn postpone(&mut self, silence: Duration) {
        self.next = silence.saturating_add(silence.min(LONGEST));
    }
}

/// A statement that runs for long is looked after at this interval.
const LONGEST: Duration = Duration::from_secs(30);

/// The looks of one pool, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    is_under_way: AtomicBool,
    /// When a connection was last made to ask, and found nothing, and how long it is until the next.
    in_vain: Mutex<Option<(Moment, Duration)>>,
}

impl Looks {
    /// Begins a look, unless one is under way.
    pub(super) fn begin(&self) -> bool {
        !self.is_under_way.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end(&self) {
        self.is_under_way.store(false, Ordering::Release);
    }

    /// Returns whether a connection may be made only to ask: seldom, if all connections are busy with long statements.
    pub(super) fn may_make(&self, now: &Moment) -> bool {
        lock(&self.in_vain).is_none_or(|(last, pause)| now.since(&last) >= pause)
    }

    /// Notes that a connection was made to ask, and whether it `has_found` a statement that was lost.
    pub(super) fn set_made(&self, now: &Moment, has_found: bool) {
        let mut in_vain = lock(&self.in_vain);
        let pause = in_vain.map_or(SHORTEST, |(_, pause)| pause.saturating_mul(2).min(LONGEST));
        *in_vain = (!has_found).then_some((*now, pause));
    }
}

/// The pause behind the first connection that was made in vain.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_statement_is_looked_after_ever_more_seldom() {
        let (mut episode, began) = (Episode::default(), Moment::now());
        let mut looks = Vec::new();
        for second in 0..=130 {
            let now = began.later(second * SECOND);
            // The connection had idled for an hour.
            let silence = episode.observe(Some(1), 3600 * SECOND, &now, SECOND);
            if episode.is_due(silence) {
                episode.postpone(silence);
                looks.push(second);
            }
        }
        assert_eq!(looks, [1, 2, 4, 8, 16, 32, 62, 92, 122]);
    }

    #[test]
    fn bytes_and_other_statements_begin_anew() {
        let (mut episode, began) = (Episode::default(), Moment::now());
        let mut silence = |second: u32, responses, still| {
            let now = began.later(second * SECOND);
            let silence = episode.observe(responses, still * SECOND, &now, SECOND);
            let is_due = episode.is_due(silence);
            if is_due {
                episode.postpone(silence);
            }
            (silence.as_secs(), is_due)
        };
        assert_eq!(silence(0, Some(1), 100), (0, false));
        assert_eq!(silence(3, Some(1), 100), (3, true));
        assert_eq!(silence(4, Some(1), 100), (4, false));
        // A byte.
        assert_eq!(silence(5, Some(1), 0), (0, false));
        assert_eq!(silence(6, Some(1), 1), (1, true));
        // Another statement.
        assert_eq!(silence(7, Some(2), 100), (0, false));
        assert_eq!(silence(8, Some(2), 100), (1, true));
        // None.
        assert_eq!(silence(9, None, 100), (0, false));
        assert_eq!(silence(90, Some(2), 100), (0, false));
    }
}
