//! How long the proxy takes, waits and caches.

use std::time::Duration;

/// The durations of Neon's proxy, unless the user sets others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) cancel_delay: Duration,
    pub(crate) handshake: Duration,
    pub(crate) authentication: Duration,
    pub(crate) compute_connect: Duration,
    pub(crate) wake_retries: u32,
    pub(crate) wake_error_cache: Duration,
    pub(crate) access_control_cache: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            cancel_delay: Duration::from_millis(10),
            handshake: Duration::from_secs(15),
            authentication: Duration::from_secs(15),
            compute_connect: Duration::from_secs(3),
            wake_retries: 7,
            wake_error_cache: Duration::from_secs(30),
            access_control_cache: Duration::from_secs(240),
        }
    }
}
