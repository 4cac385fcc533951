//! The pauses between the proxy's tries.

use std::iter::successors;
use std::time::Duration;

/// Returns the pauses before the second try, the third and so on: 100 ms, then 1.6 times the one before.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    successors(Some(Duration::from_millis(100)), |pause| {
        Some(pause.mul_f64(1.6).min(LONGEST))
    })
}

const LONGEST: Duration = Duration::from_secs(60);
