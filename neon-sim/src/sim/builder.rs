//! How a stand-in is set up.

use std::path::PathBuf;
use std::time::Duration;

use super::config::Config;
use super::neon_sim::NeonSim;
use crate::error::Error;
use crate::proxy::tls::Certificate;
use crate::servers::pooler::Pooler;

/// The settings of a [`NeonSim`], to be changed before [`start`](Self::start).
#[derive(Clone, Debug, Default)]
#[must_use = "nothing starts before `start`"]
pub struct Builder {
    pub(crate) config: Config,
}

impl NeonSim {
    /// Returns the settings of a stand-in that is as Neon is, to be changed before [`Builder::start`].
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Set how long the compute must be idle before it is suspended: 300 s, as on Neon.
    ///
    /// Milliseconds are fine. [`Duration::MAX`] means never.
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.config.suspend_after = (window < Duration::MAX).then_some(window);
        self
    }

    /// Let only [`NeonSim::suspend`] suspend the compute.
    pub fn never_suspend(mut self) -> Self {
        self.config.suspend_after = None;
        self
    }

    /// Set how long a suspended compute takes to wake: 400 ms.
    pub fn cold_start(mut self, cold_start: Duration) -> Self {
        self.config.cold_start = cold_start;
        self
    }

    /// Set the domain of the endpoints: `neon.localhost`.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.config.domain = domain.into();
        self
    }

    /// Set the endpoint's name: `ep-quiet-lake-123456`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.config.endpoint = endpoint.into();
        self
    }

    /// Set the proxy's port on 127.0.0.1: 0, any that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.config.port = port;
        self
    }

    /// Set the proxy's port of HTTPS on 127.0.0.1: 0, any that is free.
    pub fn https_port(mut self, https_port: u16) -> Self {
        self.config.https_port = https_port;
        self
    }

    /// Accept this token (`Authorization: Bearer`) in place of a password for `POST /sql` on hosts that begin with
    /// `apiauth.`; more calls, more tokens.
    pub fn accept_token(mut self, token: impl Into<String>) -> Self {
        self.config.tokens.push(token.into());
        self
    }

    /// Set the certificate that the proxy shows: a valid one.
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.config.certificate = certificate;
        self
    }

    /// Set whether the proxy offers channel binding: it does, unless something in between ends TLS.
    pub fn channel_binding(mut self, channel_binding: bool) -> Self {
        self.config.channel_binding = channel_binding;
        self
    }

    /// Refuse attempts that are too many for Neon's proxy, with the defaults in its source (`proxy/src/rate_limiter/limiter.rs`):
    /// none are. With which limits Neon's service runs is not known.
    ///
    /// An endpoint takes 500 logins at once and 200 a second; others are told `Too many connections to this endpoint. Please
    /// try again later.` While the compute sleeps or wakes, 300 logins in a second may wait for it, 12,000 in a minute and
    /// 60,000 in ten; others are told `Too many connections attempts`.
    pub fn limit_attempts(mut self) -> Self {
        self.config.limits_attempts = true;
        self
    }

    /// Add settings to `postgresql.conf`, on top of the stand-in's own.
    pub fn postgres_settings<N, V>(mut self, settings: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        self.config.postgres_settings.extend(owned(settings));
        self
    }

    /// Set what serves the pooled endpoint: PgBouncer, which must be on this machine.
    pub fn pooler(mut self, pooler: Pooler) -> Self {
        self.config.pooler = pooler;
        self
    }

    /// Set the PgBouncer program to run: the machine's own.
    ///
    /// Its abilities depend on its version, see [`NeonSim::pgbouncer_version`].
    pub fn pgbouncer_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.config.pooler = Pooler::PgBouncer;
        self.config.pgbouncer = Some(program.into());
        self
    }

    /// Add settings to PgBouncer's `[pgbouncer]` section, on top of the stand-in's own.
    ///
    /// `max_prepared_statements` is 1000, as on Neon, for a PgBouncer that knows it, from 1.21
    /// on; an older one behaves like 0, and any other value is an error.
    pub fn pgbouncer_settings<N, V>(mut self, settings: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        self.config.pgbouncer_settings.extend(owned(settings));
        self
    }

    /// Set how long the proxy takes from closing a cancel request's socket to cancelling: 10 ms.
    ///
    /// Neon's proxy closes the socket first, so the request cancels a statement that is sent right after the close.
    pub fn cancel_delay(mut self, cancel_delay: Duration) -> Self {
        self.config.timing.cancel_delay = cancel_delay;
        self
    }

    /// Set how long a client may take from connecting to its startup packet before it is closed: 15 s.
    pub fn handshake_timeout(mut self, handshake_timeout: Duration) -> Self {
        self.config.timing.handshake = handshake_timeout;
        self
    }

    /// Set how long a client may take to authenticate before it is refused: 15 s.
    pub fn authentication_timeout(mut self, authentication_timeout: Duration) -> Self {
        self.config.timing.authentication = authentication_timeout;
        self
    }

    /// Set how long the proxy tries to connect to the compute before it refuses the client: 3 s.
    pub fn compute_connect_timeout(mut self, compute_connect_timeout: Duration) -> Self {
        self.config.timing.compute_connect = compute_connect_timeout;
        self
    }

    /// Set how often the proxy tries again to wake the compute before it refuses the client: 7 times.
    ///
    /// The pauses between the tries grow from 100 ms on; seven of them take 4.3 s. A final error is told at once.
    pub fn wake_retries(mut self, wake_retries: u32) -> Self {
        self.config.timing.wake_retries = wake_retries;
        self
    }

    /// Set how long the proxy answers with a final error of a wake-up without another try: 30 s.
    pub fn wake_error_cache_ttl(mut self, wake_error_cache: Duration) -> Self {
        self.config.timing.wake_error_cache = wake_error_cache;
        self
    }

    /// Set how long the proxy caches a role's password: 240 s.
    pub fn access_control_cache_ttl(mut self, access_control_cache: Duration) -> Self {
        self.config.timing.access_control_cache = access_control_cache;
        self
    }

    /// Set how long PgBouncer waits after a failed login to the server before the next: 50 ms, where Neon's waits
    /// for 15 s.
    ///
    /// Until then it tells clients that `server login has been failing`.
    pub fn server_login_retry(self, server_login_retry: Duration) -> Self {
        let seconds = server_login_retry.as_secs_f64().to_string();
        self.pgbouncer_settings([("server_login_retry", seconds)])
    }

    /// Starts the servers and the proxy, which takes about half a second.
    ///
    /// # Errors
    ///
    /// When PostgreSQL or PgBouncer is missing or does not start, or a setting cannot be used.
    pub async fn start(self) -> Result<NeonSim, Error> {
        self.config.validate()?;
        NeonSim::start(self.config, None).await
    }
}

fn owned<N: Into<String>, V: Into<String>>(
    settings: impl IntoIterator<Item = (N, V)>,
) -> impl Iterator<Item = (String, String)> {
    settings
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
}
