//! How a stand-in is to be.

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Settings;
use crate::error::Error;
use crate::sim::NeonSim;
use crate::times::Times;
use crate::tls::Certificate;

/// The settings of a [`NeonSim`].
#[derive(Clone, Debug)]
#[must_use = "nothing starts before `start`"]
pub struct Builder {
    pub(crate) suspend_after: Option<Duration>,
    pub(crate) cold_start: Duration,
    pub(crate) domain: String,
    pub(crate) endpoint: String,
    pub(crate) port: u16,
    pub(crate) certificate: Certificate,
    pub(crate) channel_binding: bool,
    pub(crate) times: Times,
    pub(crate) postgres_settings: Settings,
    pub(crate) pgbouncer: Option<PathBuf>,
    pub(crate) pgbouncer_settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            suspend_after: Some(Duration::from_secs(300)),
            cold_start: Duration::from_millis(400),
            domain: "neon.localhost".into(),
            endpoint: "ep-quiet-lake-123456".into(),
            port: 0,
            certificate: Certificate::Valid,
            channel_binding: true,
            times: Times::default(),
            postgres_settings: Settings::new(),
            pgbouncer: None,
            pgbouncer_settings: Settings::new(),
        }
    }
}

impl Builder {
    /// How long nothing must happen before the compute is suspended: 300 s, as Neon has it.
    ///
    /// Milliseconds are fine. [`Duration::MAX`] means never.
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.suspend_after = (window < Duration::MAX).then_some(window);
        self
    }

    /// The compute is only suspended by [`NeonSim::suspend`].
    pub fn never_suspend(mut self) -> Self {
        self.suspend_after = None;
        self
    }

    /// How long a suspended compute takes to wake: 400 ms.
    pub fn cold_start(mut self, cold_start: Duration) -> Self {
        self.cold_start = cold_start;
        self
    }

    /// The domain of the endpoints: `neon.localhost`.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// The endpoint's name: `ep-quiet-lake-123456`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// The port of the proxy on 127.0.0.1: 0, any that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The certificate that the proxy shows: a valid one.
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = certificate;
        self
    }

    /// Whether a login can be bound to its TLS session: it can, unless something in between ends TLS.
    pub fn channel_binding(mut self, channel_binding: bool) -> Self {
        self.channel_binding = channel_binding;
        self
    }

    /// Settings for `postgresql.conf`, on top of the stand-in's own.
    pub fn postgres_settings<N, V>(mut self, settings: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        self.postgres_settings.extend(owned(settings));
        self
    }

    /// The PgBouncer to run: the machine's own.
    ///
    /// What it can do depends on its version, see [`NeonSim::pgbouncer_version`].
    pub fn pgbouncer(mut self, program: impl Into<PathBuf>) -> Self {
        self.pgbouncer = Some(program.into());
        self
    }

    /// Settings for the `[pgbouncer]` section, on top of the stand-in's own.
    ///
    /// `max_prepared_statements` is 1000 as on Neon where PgBouncer knows it, that is from 1.21
    /// on; older ones behave like 0, and any other value is an error.
    pub fn pgbouncer_settings<N, V>(mut self, settings: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        self.pgbouncer_settings.extend(owned(settings));
        self
    }

    /// Starts the servers and the proxy, which takes about half a second.
    ///
    /// # Errors
    ///
    /// When PostgreSQL or PgBouncer is missing or does not start, or a setting cannot be used.
    pub async fn start(self) -> Result<NeonSim, Error> {
        let label = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if !label(&self.endpoint) || self.endpoint.ends_with("-pooler") {
            return Err(Error::Setting(format!(
                "the endpoint `{}` is not of the form `ep-<name>-<number>`",
                self.endpoint
            )));
        }
        if !self.domain.split('.').all(label) {
            return Err(Error::Setting(format!(
                "the domain `{}` is not a host name",
                self.domain
            )));
        }
        NeonSim::start(self).await
    }
}

fn owned<N: Into<String>, V: Into<String>>(
    settings: impl IntoIterator<Item = (N, V)>,
) -> impl Iterator<Item = (String, String)> {
    settings
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
}
