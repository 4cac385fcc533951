//! How long the proxy takes, waits and remembers.

use std::time::Duration;

use crate::builder::Builder;

/// As Neon's proxy has them, unless the user wants others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) cancel_delay: Duration,
    pub(crate) handshake: Duration,
    pub(crate) authentication: Duration,
    pub(crate) unreachable: Duration,
    pub(crate) wake_retries: u32,
    pub(crate) wake_error_cache: Duration,
    pub(crate) access_control_cache: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            cancel_delay: Duration::from_millis(10),
            handshake: Duration::from_secs(15),
            authentication: Duration::from_secs(15),
            unreachable: Duration::from_secs(3),
            wake_retries: 7,
            wake_error_cache: Duration::from_secs(30),
            access_control_cache: Duration::from_secs(240),
        }
    }
}

impl Builder {
    /// How long the proxy takes from closing a cancel request's socket to cancelling: 10 ms.
    ///
    /// Neon's proxy closes the socket at once, so a statement that is sent upon that is what gets cancelled.
    pub fn cancel_delay(mut self, cancel_delay: Duration) -> Self {
        self.times.cancel_delay = cancel_delay;
        self
    }

    /// How long a client may take from connecting to its startup packet, after which it is closed: 15 s.
    pub fn handshake_timeout(mut self, handshake_timeout: Duration) -> Self {
        self.times.handshake = handshake_timeout;
        self
    }

    /// How long a client may take to authenticate, after which it is told so: 15 s.
    pub fn authentication_timeout(mut self, authentication_timeout: Duration) -> Self {
        self.times.authentication = authentication_timeout;
        self
    }

    /// How long the proxy tries to reach the compute before it tells the client: 3 s.
    pub fn unreachable_after(mut self, unreachable_after: Duration) -> Self {
        self.times.unreachable = unreachable_after;
        self
    }

    /// Set how often the proxy tries again to wake the compute before it tells the client: 7 times.
    ///
    /// The pauses between the tries grow from 100 ms on; seven of them take 4.3 s. A final error is told at once.
    pub fn wake_retries(mut self, wake_retries: u32) -> Self {
        self.times.wake_retries = wake_retries;
        self
    }

    /// How long a final error of a wake-up is told again without another try: 30 s.
    pub fn wake_error_cache(mut self, wake_error_cache: Duration) -> Self {
        self.times.wake_error_cache = wake_error_cache;
        self
    }

    /// How long the proxy goes by what it has seen of a role, its password above all: 240 s.
    pub fn access_control_cache(mut self, access_control_cache: Duration) -> Self {
        self.times.access_control_cache = access_control_cache;
        self
    }

    /// How long PgBouncer waits after a failed login to the server before the next: 50 ms, where Neon's
    /// waits for 15 s.
    ///
    /// Until then clients are told `server login has been failing`.
    pub fn server_login_retry(self, server_login_retry: Duration) -> Self {
        let seconds = server_login_retry.as_secs_f64().to_string();
        self.pgbouncer_settings([("server_login_retry", seconds)])
    }
}
