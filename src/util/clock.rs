//! Time that also passes while the machine is suspended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Returns the moment `wait` after `start`, but at most thirty years after it.
///
/// Only this function adds to an `Instant`: the sum panics if it overflows, and users choose durations.
pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    #[expect(clippy::arithmetic_side_effects, reason = "bounded")]
    let moment = start + wait.min(FAREST);
    moment
}

/// A runtime that is loaded is this late at most. One that is later does not run.
pub(crate) const SLACK: Duration = Duration::from_secs(1);

/// Thirty years, tokio's own "far future".
pub(crate) const FAREST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A moment on two clocks.
///
/// The monotonic clock stands still while a laptop's lid is closed or a function's instance is frozen, so that
/// a connection would look fresh afterwards; the wall clock may be set. The longer of the two times is the
/// safe one: at worst a connection is checked or replaced without need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    pub(crate) fn monotonic(&self) -> Instant {
        self.monotonic
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().since(self)
    }

    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let [monotonic, wall] = self.both_since(earlier);
        monotonic.max(wall)
    }

    #[cfg(test)]
    pub(crate) fn later(self, duration: Duration) -> Self {
        Self {
            monotonic: after(self.monotonic, duration),
            wall: self.wall.checked_add(duration).unwrap(),
        }
    }

    fn both_since(&self, earlier: &Self) -> [Duration; 2] {
        // The wall clock may have been set back.
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        [monotonic, wall]
    }
}

/// The moment of the last activity, shared without a lock.
#[derive(Debug)]
pub(crate) struct LastSeen {
    began: Moment,
    /// Microseconds since `began`, on each clock.
    seen: [AtomicU64; 2],
}

impl LastSeen {
    pub(crate) fn now() -> Self {
        Self {
            began: Moment::now(),
            seen: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    pub(crate) fn mark(&self) {
        for (seen, elapsed) in self.seen.iter().zip(Moment::now().both_since(&self.began)) {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            seen.store(micros, Ordering::Release);
        }
    }

    pub(crate) fn elapsed_at(&self, now: &Moment) -> Duration {
        let since = |(seen, elapsed): (&AtomicU64, Duration)| {
            elapsed.saturating_sub(Duration::from_micros(seen.load(Ordering::Acquire)))
        };
        let both = self.seen.iter().zip(now.both_since(&self.began)).map(since);
        both.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now_but_wall(shift: impl Fn(SystemTime) -> SystemTime) -> Moment {
        let now = Moment::now();
        Moment {
            wall: shift(now.wall),
            ..now
        }
    }

    #[test]
    fn time_that_only_the_wall_clock_saw_counts() {
        assert!(now_but_wall(|wall| wall - HOUR).elapsed() >= HOUR);
        let seen = LastSeen {
            began: now_but_wall(|wall| wall - HOUR),
            seen: [AtomicU64::new(0), AtomicU64::new(0)],
        };
        assert!(seen.elapsed_at(&Moment::now()) >= HOUR);
        seen.mark();
        assert!(seen.elapsed_at(&Moment::now()) < HOUR);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_matter() {
        assert!(now_but_wall(|wall| wall + HOUR).elapsed() < HOUR);
    }
}
