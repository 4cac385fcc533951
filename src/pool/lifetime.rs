//! How long a connection lives, and how often a pool looks for idle ones that are at their end. Pure.

use std::time::Duration;

/// Returns a new connection's own lifetime: up to a quarter less than the cap (HikariCP's variance), so that connections
/// that were made together do not end together; never more, since the suspension lies behind it.
pub(crate) fn of_one(max_lifetime: Duration) -> Duration {
    max_lifetime.saturating_sub((max_lifetime / 4).mul_f64(fastrand::f64()))
}

/// Returns the time from one look at the idle connections to the next, which also looks for `leaks` that are so old.
pub(crate) fn sweep_interval(
    idle_timeout: Duration,
    max_lifetime: Duration,
    leaks: Option<Duration>,
) -> Duration {
    let shortest = idle_timeout.min(max_lifetime);
    let ends = (shortest / 4).max(SHORTEST_FOR_ENDS);
    let leaks = leaks.map_or(LONGEST, |threshold| threshold / 4);
    ends.min(leaks).clamp(SHORTEST, LONGEST)
}

const SHORTEST_FOR_ENDS: Duration = Duration::from_millis(10);
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_spread_over_the_last_quarter() {
        let cap = Duration::from_secs(240);
        let all: Vec<_> = (0..1000).map(|_| of_one(cap)).collect();
        let (shortest, longest) = (all.iter().min(), all.iter().max());
        assert!(*longest.unwrap() <= cap);
        assert!(*shortest.unwrap() >= cap / 4 * 3);
        assert!(
            *longest.unwrap() - *shortest.unwrap() > cap / 8,
            "no spread"
        );
        assert_eq!(of_one(Duration::ZERO), Duration::ZERO);
        assert!(of_one(Duration::MAX) >= Duration::MAX / 4 * 3);
    }

    #[test]
    fn the_shortest_of_what_may_end_is_looked_at_four_times() {
        let seconds = Duration::from_secs;
        let interval =
            |idle, lifetime, leaks| sweep_interval(seconds(idle), seconds(lifetime), leaks);
        assert_eq!(interval(40, 240, None), seconds(10));
        assert_eq!(interval(600, 20, None), seconds(5));
        assert_eq!(interval(600, 1800, None), seconds(30));
        assert_eq!(interval(150, 240, Some(seconds(60))), seconds(15));
        assert_eq!(interval(0, 240, None), Duration::from_millis(10));
        assert_eq!(
            interval(600, 1800, Some(Duration::ZERO)),
            Duration::from_millis(1)
        );
    }
}
