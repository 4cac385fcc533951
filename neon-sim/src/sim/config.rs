//! A stand-in's settings.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::proxy::timing::Timing;
use crate::proxy::tls::Certificate;
use crate::servers::pooler::Pooler;
use crate::servers::server::ServerSettings;

/// The settings that a [`Builder`](super::builder::Builder) collects.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(super) suspend_after: Option<Duration>,
    pub(super) cold_start: Duration,
    pub(super) domain: String,
    pub(super) endpoint: String,
    pub(super) port: u16,
    pub(super) https_port: u16,
    pub(super) tokens: Vec<String>,
    pub(super) certificate: Certificate,
    pub(super) channel_binding: bool,
    pub(super) limits_attempts: bool,
    pub(super) timing: Timing,
    pub(crate) postgres_settings: ServerSettings,
    pub(crate) pooler: Pooler,
    pub(crate) pgbouncer: Option<PathBuf>,
    pub(crate) pgbouncer_settings: ServerSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suspend_after: Some(Duration::from_secs(300)),
            cold_start: Duration::from_millis(400),
            domain: "neon.localhost".into(),
            endpoint: "ep-quiet-lake-123456".into(),
            port: 0,
            https_port: 0,
            tokens: Vec::new(),
            certificate: Certificate::Valid,
            channel_binding: true,
            limits_attempts: false,
            timing: Timing::default(),
            postgres_settings: ServerSettings::new(),
            pooler: Pooler::PgBouncer,
            pgbouncer: None,
            pgbouncer_settings: ServerSettings::new(),
        }
    }
}

impl Config {
    /// Returns an error that names the setting that cannot be used.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let is_label = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if !is_label(&self.endpoint) || self.endpoint.ends_with("-pooler") {
            return Err(Error::Setting(format!(
                "the endpoint `{}` is not of the form `ep-<name>-<number>`",
                self.endpoint
            )));
        }
        if !self.domain.split('.').all(is_label) {
            return Err(Error::Setting(format!(
                "the domain `{}` is not a host name",
                self.domain
            )));
        }
        Ok(())
    }
}
