//! Time that also passes while the machine is suspended.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// When moments begin: real time, also while a test has paused tokio's clock.
static START: LazyLock<Instant> = LazyLock::new(|| Instant::from_std(std::time::Instant::now()));

/// A moment on two clocks.
///
/// The monotonic clock stands still while a laptop's lid is closed or a function's instance is frozen, so that
/// a connection would look fresh afterwards; the wall clock may be set. The longer of the two times is the
/// safe one: at worst a connection is checked or replaced without need.
///
/// In nanoseconds, which cost less to compare than the standard library's types: a checkout and a statement look at them
/// several times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Since [`START`].
    monotonic: u64,
    /// Since 1970.
    wall: u64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            monotonic: nanos(Instant::now().saturating_duration_since(*START)),
            wall: nanos(wall.unwrap_or_default()),
        }
    }

    pub(crate) fn monotonic(&self) -> Instant {
        after(*START, Duration::from_nanos(self.monotonic))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().since(self)
    }

    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let monotonic = self.monotonic.saturating_sub(earlier.monotonic);
        // The wall clock may have been set back.
        let wall = self.wall.saturating_sub(earlier.wall);
        Duration::from_nanos(monotonic.max(wall))
    }

    #[cfg(test)]
    pub(crate) fn later(self, duration: Duration) -> Self {
        Self {
            monotonic: self.monotonic + nanos(duration),
            wall: self.wall + nanos(duration),
        }
    }
}

/// Returns at most 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The moment of the last activity, shared without a lock.
#[derive(Debug)]
pub(crate) struct LastSeen {
    monotonic: AtomicU64,
    wall: AtomicU64,
}

impl LastSeen {
    pub(crate) fn now() -> Self {
        let now = Moment::now();
        Self {
            monotonic: AtomicU64::new(now.monotonic),
            wall: AtomicU64::new(now.wall),
        }
    }

    pub(crate) fn mark(&self) {
        let now = Moment::now();
        self.monotonic.store(now.monotonic, Ordering::Release);
        self.wall.store(now.wall, Ordering::Release);
    }

    pub(crate) fn elapsed_at(&self, now: &Moment) -> Duration {
        now.since(&Moment {
            monotonic: self.monotonic.load(Ordering::Acquire),
            wall: self.wall.load(Ordering::Acquire),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn set(wall: impl Fn(u64, u64) -> u64) -> Moment {
        let now = Moment::now();
        Moment {
            wall: wall(now.wall, nanos(HOUR)),
            ..now
        }
    }

    #[test]
    fn time_that_only_the_wall_clock_saw_counts() {
        assert!(set(|wall, hour| wall - hour).elapsed() >= HOUR);
        let (seen, later) = (LastSeen::now(), set(|wall, hour| wall + hour));
        assert!(seen.elapsed_at(&later) >= HOUR);
        seen.mark();
        assert!(seen.elapsed_at(&Moment::now()) < HOUR);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_matter() {
        assert!(set(|wall, hour| wall + hour).elapsed() < HOUR);
    }

    #[test]
    fn a_moment_is_the_same_instant_again() {
        let (before, now, after) = (Instant::now(), Moment::now(), Instant::now());
        assert!((before..=after).contains(&now.monotonic()));
        assert_eq!(now.later(HOUR).since(&now), HOUR);
    }
}
