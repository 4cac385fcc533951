//! The pause before another attempt. Pure.

use std::time::Duration;

/// Returns an exponential pause with full jitter, so that callers who failed together do not come back
/// together; at most half of the time that is `left`, so that the next attempt has a chance.
pub(crate) fn pause(failures: u32, left: Duration) -> Duration {
    let ceiling = BASE.saturating_mul(2_u32.pow(failures.min(16)));
    ceiling.min(CAP).min(left / 2).mul_f64(fastrand::f64())
}

/// Returns the pause before another attempt to connect; none if in the time that is `left` it cannot succeed.
///
/// A server that `is_crowded` lets so many in each second, and no more if it is asked more often.
pub(crate) fn pause_to_connect(
    failures: u32,
    is_crowded: bool,
    left: Duration,
) -> Option<Duration> {
    let steps = match is_crowded {
        true => CROWD,
        false => 0,
    };
    (left >= LEAST_TO_CONNECT).then(|| pause(failures.saturating_add(steps), left))
}

/// A short base suits all servers: Neon's proxy itself tries a compute for about 3 s.
const BASE: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(2);
/// So much later on the ladder, which is 400 ms: of 100 pools behind a limit, a third fewer attempts were made, and the last caller
/// was served sooner.
const CROWD: u32 = 3;
const LEAST_TO_CONNECT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_takes_all_the_time_that_is_left() {
        for failures in [0, 1, 5, 100, u32::MAX] {
            for left in [Duration::ZERO, BASE, CAP, Duration::MAX] {
                let pause = pause(failures, left);
                assert!(pause <= left / 2 && pause <= CAP, "{failures}, {left:?}");
            }
        }
    }

    #[test]
    fn a_crowd_is_joined_again_more_slowly() {
        fastrand::seed(7);
        let mean = |is_crowded| {
            let pause = |_| pause_to_connect(0, is_crowded, Duration::MAX).unwrap();
            (0..1000).map(pause).sum::<Duration>() / 1000
        };
        let (alone, crowded) = (mean(false), mean(true));
        assert!(crowded > 6 * alone, "{alone:?}, {crowded:?}");
    }

    #[test]
    fn nobody_connects_again_in_the_last_moment() {
        let moment = Duration::from_millis(99);
        assert_eq!(pause_to_connect(0, false, moment), None);
        let pause = pause_to_connect(9, true, LEAST_TO_CONNECT).unwrap();
        assert!(pause <= LEAST_TO_CONNECT / 2);
    }
}
