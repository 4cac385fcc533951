//! How long to wait before another try.

use std::time::Duration;

/// Exponential, with full jitter, so that those who failed together do not come back together.
pub(crate) fn pause(failures: u32) -> Duration {
    let ceiling = BASE * 2_u32.pow(failures.min(16));
    ceiling.min(CAP).mul_f64(fastrand::f64())
}

/// Neon's proxy tries a compute for about 3 s by itself; a short base suits everything else.
const BASE: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(2);
