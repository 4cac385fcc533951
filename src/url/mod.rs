//! [`DatabaseUrl`]: where a database is and how to reach it, parsed once.

mod endpoint;
mod error;
mod host;
mod parameters;
mod parse;
mod render;
mod tls;

use std::str::FromStr;
use std::time::Duration;

pub use self::endpoint::Endpoint;
pub use self::error::UrlError;
pub use self::host::{Host, HostName};
use self::parameters::{RawParameters, Settings};
use self::parse::{Parts, strip_psql};
pub use self::tls::{ChannelBinding, Encryption, Negotiation, Roots};

/// A Postgres URL that is known to be usable: every parameter is understood, and beyond loopback it
/// asks for verified TLS.
///
/// It takes what Neon's console, `neonctl` and the Vercel integration print (also with the
/// `psql '…'` around it), and libpq's parameters. The two drivers that a Diesel project meets want
/// different spellings, so it renders for each: [`to_tokio_postgres`](Self::to_tokio_postgres) for
/// the app, [`to_libpq`](Self::to_libpq) for the `diesel` CLI and `psql`.
///
/// `Debug` and `Display` never show the password.
///
/// | parameter | what becomes of it |
/// |---|---|
/// | `sslmode` | `require`, `verify-ca`, `verify-full` and none at all mean `verify-full`; `disable`, `allow`, `prefer` are an error beyond loopback, and mean plain text there |
/// | `sslrootcert` | a PEM file, or `system` |
/// | `channel_binding` | `disable`, `prefer` (default), `require` |
/// | `sslnegotiation` | `postgres`, `direct`; default: `direct` where the host is Neon's (saves a round trip), else `postgres` |
/// | `options`, `application_name`, `hostaddr`, `target_session_attrs`, `load_balance_hosts`, `keepalives*` | as in libpq; several hosts too |
/// | `connect_timeout` | seconds; the budget for a whole connection, see [`Policy`](crate::Policy) |
/// | `tcp_user_timeout` | milliseconds, as in libpq (tokio-postgres reads seconds) |
/// | `pgbouncer`, `connection_limit`, `pool_timeout`, `schema`, `statement_cache_size`, `socket_timeout` | other ORMs' settings: left out and listed by [`ignored`](Self::ignored) |
/// | any other | [`UrlError::UnknownParameter`] |
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    hosts: Vec<Host>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    encryption: Encryption,
    settings: Settings,
    ignored: Vec<String>,
}

impl DatabaseUrl {
    /// Parses a URL that starts with `postgres://` or `postgresql://`.
    ///
    /// # Errors
    ///
    /// [`UrlError`] names what is wrong and how to mend it, and never quotes the URL.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let parts = Parts::split(strip_psql(url))?;
        let mut raw = RawParameters::default();
        let mut ignored = Vec::new();
        for (key, value) in &parts.parameters {
            raw.set(key, value, &mut ignored)?;
        }

        let user = raw.user.or(parts.user);
        let password = raw.password.or(parts.password);
        let database = raw.dbname.or(parts.database);
        let hosts = host::hosts(
            raw.host.as_deref().unwrap_or(&parts.hosts),
            raw.hostaddr.as_deref(),
            raw.port.as_deref(),
        )?;
        let encryption = tls::encryption(&hosts, raw.ssl)?;

        Ok(Self {
            hosts,
            user,
            password,
            database,
            encryption,
            settings: raw.settings,
            ignored,
        })
    }

    /// The hosts, in the order in which they are tried.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The user name; the drivers take the operating system's where it is absent.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, in the clear.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The same URL for a program that gets the password another way, such as `PGPASSWORD`.
    #[must_use]
    pub fn without_password(&self) -> Self {
        Self {
            password: None,
            ..self.clone()
        }
    }

    /// The database's name; the drivers take the user's name where it is absent.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// How the connection is protected.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// `connect_timeout`, where the URL has one.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.settings.connect_timeout
    }

    /// Parameters of other ORMs that this URL carried and that mean nothing here.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Whether every host is one of Neon's own (`*.neon.tech`).
    pub fn is_neon(&self) -> bool {
        self.hosts.iter().all(Host::is_neon)
    }

    #[cfg(feature = "migrations")]
    pub(crate) fn with_option(&self, name: &str, value: &str) -> Self {
        let mut url = self.clone();
        let options = url.settings.options.get_or_insert_default();
        if !options.is_empty() {
            options.push(' ');
        }
        options.push_str(&format!("-c {name}={value}"));
        url
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}
