//! How many connections Neon's proxy lets through to one endpoint. Pure: moments are times since any start.

use std::time::Duration;

/// The limits of Neon's proxy by default, in the source of which they are `RateBucketInfo::DEFAULT_ENDPOINT_SET` and `DEFAULT_SET`
/// (`proxy/src/rate_limiter/limiter.rs`). With which limits Neon's service runs is not known.
///
/// Logins fill a bucket that leaks: of the rates in the former the proxy takes the highest as its size, and the lowest as what leaks
/// in a second. Those that find the compute asleep are counted in the windows of the latter as well, since each asks the control
/// plane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    /// When the bucket of the logins will be empty.
    empty_at: Duration,
    wakes: [Window; 3],
}

impl Admission {
    /// Returns why a client may not log in at `now`, if it may not.
    pub(crate) fn refuse_login(&mut self, now: Duration) -> Option<&'static str> {
        let filled = self.empty_at.max(now) + LOGIN;
        if filled > now + LOGIN * LOGINS_AT_ONCE {
            return Some("Too many connections to this endpoint. Please try again later.");
        }
        self.empty_at = filled;
        None
    }

    /// Returns why a client that has logged in may not wake the compute at `now`, if it may not.
    pub(crate) fn refuse_wake(&mut self, now: Duration) -> Option<&'static str> {
        for (window, (length, _)) in self.wakes.iter_mut().zip(WAKES) {
            window.turn(now, length);
        }
        let mut windows = self.wakes.iter().zip(WAKES);
        if windows.any(|(window, (_, most))| window.count >= most) {
            return Some("Too many connections attempts");
        }
        for window in &mut self.wakes {
            window.count += 1;
        }
        None
    }
}

/// What is counted from a moment on.
#[derive(Clone, Debug, Default)]
struct Window {
    since: Duration,
    count: u32,
}

impl Window {
    /// Begins anew if the window's length is over.
    fn turn(&mut self, now: Duration, length: Duration) {
        if now.saturating_sub(self.since) >= length {
            *self = Self {
                since: now,
                count: 0,
            };
        }
    }
}

/// What a login adds to the bucket, which leaks 200 of them a second: 500 in a second, 300 over a minute, 200 over ten.
const LOGIN: Duration = Duration::from_millis(5);
const LOGINS_AT_ONCE: u32 = 500;
/// The windows, and how many in each.
const WAKES: [(Duration, u32); 3] = [
    (Duration::from_secs(1), 300),
    (Duration::from_secs(60), 200 * 60),
    (Duration::from_secs(600), 100 * 600),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_hundred_log_in_at_once_and_then_two_hundred_a_second() {
        let mut admission = Admission::default();
        let mut admitted = |now| {
            (0..1000)
                .filter(|_| admission.refuse_login(now).is_none())
                .count()
        };
        assert_eq!(admitted(SECOND), 500);
        assert_eq!(admitted(SECOND), 0);
        assert_eq!(admitted(SECOND + LOGIN), 1);
        assert_eq!(admitted(SECOND * 2), 199);
        assert_eq!(admitted(SECOND * 60), 500);
    }

    #[test]
    fn three_hundred_wake_the_compute_in_each_second_and_fewer_in_each_minute() {
        let mut admission = Admission::default();
        let mut admitted = |now| {
            (0..1000)
                .filter(|_| admission.refuse_wake(now).is_none())
                .count()
        };
        assert_eq!(admitted(Duration::ZERO), 300);
        assert_eq!(admitted(SECOND * 9 / 10), 0);
        let minute: usize = (1..60).map(|second| admitted(SECOND * second)).sum();
        assert_eq!(minute, 12_000 - 300);
        assert_eq!(admitted(SECOND * 60), 300);
    }
}
