//! [`DatabaseUrl`]: where a database is and how to reach it, parsed once.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio_postgres::config::{self as pg, LoadBalanceHosts, TargetSessionAttrs};

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
        let hosts = hosts(
            raw.host.as_deref().unwrap_or(&parts.hosts),
            raw.hostaddr.as_deref(),
            raw.port.as_deref(),
        )?;
        let encryption = encryption(&hosts, raw.ssl)?;

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

    /// Whether this URL leads to Neon's pooler (PgBouncer in transaction mode) or straight to
    /// Postgres.
    ///
    /// Pooled means that the first label of the host name ends in `-pooler`; where the host is a bare
    /// address, the `endpoint` option decides.
    pub fn endpoint(&self) -> Endpoint {
        let pooled = self.hosts.iter().any(|host| match &host.name {
            HostName::Tcp(name) if name.parse::<IpAddr>().is_err() => {
                first_label(name).ends_with(POOLER)
            }
            _ => self
                .endpoint_option()
                .is_some_and(|endpoint| endpoint.ends_with(POOLER)),
        });
        if pooled {
            Endpoint::Pooled
        } else {
            Endpoint::Direct
        }
    }

    /// The same database without the pooler, for migrations, `LISTEN`, and session state.
    ///
    /// Only the `-pooler` of the endpoint's label goes (and of the `endpoint` option, which Neon wants
    /// to be equal). A URL that is direct already comes back as it is.
    pub fn direct(&self) -> Self {
        self.map_endpoint(|endpoint| endpoint.strip_suffix(POOLER).unwrap_or(endpoint).to_owned())
    }

    /// The same database through Neon's pooler.
    ///
    /// # Errors
    ///
    /// [`UrlError::NotAnEndpoint`] where a host is not a Neon endpoint (`ep-….<region>…`): nothing is
    /// known of its pooler.
    pub fn pooled(&self) -> Result<Self, UrlError> {
        for host in &self.hosts {
            let is_endpoint = match &host.name {
                HostName::Tcp(name) if name.parse::<IpAddr>().is_err() => {
                    name.starts_with("ep-") && name.contains('.')
                }
                HostName::Tcp(_) => self.endpoint_option().is_some(),
                HostName::Unix(_) => false,
            };
            if !is_endpoint {
                return Err(UrlError::NotAnEndpoint {
                    host: host.name.to_string(),
                });
            }
        }
        Ok(
            self.map_endpoint(|endpoint| match endpoint.ends_with(POOLER) {
                true => endpoint.to_owned(),
                false => format!("{endpoint}{POOLER}"),
            }),
        )
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

    /// Whether every host has the name of a Neon endpoint that is not pooled: what is said of others
    /// is only known by asking.
    pub(crate) fn is_direct_by_name(&self) -> bool {
        self.endpoint() == Endpoint::Direct
            && self.hosts.iter().all(|host| {
                host.is_neon()
                    || matches!(&host.name, HostName::Tcp(name) if name.starts_with("ep-") && name.contains('.'))
            })
    }

    /// Renders for tokio-postgres.
    ///
    /// `sslmode` is `require` where TLS is wanted (that driver knows no more; the chain and the name
    /// are verified by the rustls configuration) and `disable` where not. TCP keepalives and
    /// `tcp_user_timeout` are set where the URL is silent, so that a peer that vanished is noticed
    /// within half a minute; they are the kernel's and keep no compute awake.
    ///
    /// The result holds the password; its `Debug` does not show it.
    pub fn to_tokio_postgres(&self) -> tokio_postgres::Config {
        let settings = &self.settings;
        let mut config = tokio_postgres::Config::new();
        for host in &self.hosts {
            match &host.name {
                HostName::Tcp(name) => config.host(name),
                #[cfg(unix)]
                HostName::Unix(path) => config.host_path(path),
                #[cfg(not(unix))]
                HostName::Unix(path) => config.host(path.to_string_lossy()),
            };
            config.port(host.port);
        }
        for address in self.hosts.iter().filter_map(|host| host.address) {
            config.hostaddr(address);
        }
        if let Some(user) = &self.user {
            config.user(user);
        }
        if let Some(password) = &self.password {
            config.password(password);
        }
        if let Some(database) = &self.database {
            config.dbname(database);
        }
        match &self.encryption {
            Encryption::Plain => {
                config
                    .ssl_mode(pg::SslMode::Disable)
                    .channel_binding(pg::ChannelBinding::Disable);
            }
            Encryption::Tls {
                channel_binding,
                negotiation,
                ..
            } => {
                config
                    .ssl_mode(pg::SslMode::Require)
                    .channel_binding(match channel_binding {
                        ChannelBinding::Disable => pg::ChannelBinding::Disable,
                        ChannelBinding::Prefer => pg::ChannelBinding::Prefer,
                        ChannelBinding::Require => pg::ChannelBinding::Require,
                    })
                    .ssl_negotiation(match negotiation {
                        Negotiation::Direct => pg::SslNegotiation::Direct,
                        Negotiation::Postgres => pg::SslNegotiation::Postgres,
                    });
            }
        }
        if let Some(options) = &settings.options {
            config.options(options);
        }
        config.application_name(
            settings
                .application_name
                .as_deref()
                .unwrap_or(concat!("diesel-neon/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(attrs) = settings.target_session_attrs {
            config.target_session_attrs(attrs);
        }
        if let Some(load_balance) = settings.load_balance_hosts {
            config.load_balance_hosts(load_balance);
        }
        config
            .keepalives(settings.keepalives.unwrap_or(true))
            .keepalives_idle(settings.keepalives_idle.unwrap_or(KEEPALIVES_IDLE))
            .keepalives_interval(settings.keepalives_interval.unwrap_or(KEEPALIVES_INTERVAL))
            .keepalives_retries(settings.keepalives_count.unwrap_or(KEEPALIVES_COUNT))
            .tcp_user_timeout(settings.tcp_user_timeout.unwrap_or(TCP_USER_TIMEOUT));
        config
    }

    /// Renders for libpq, hence for the `diesel` CLI, `psql` and `pg_dump`. **Holds the password.**
    ///
    /// TLS becomes `sslmode=verify-full` with the path of the system's CA bundle (libpq before
    /// version 16 does not know `sslrootcert=system`); `sslnegotiation` is left out, since libpq before
    /// 17 rejects it and it only saves a round trip.
    pub fn to_libpq(&self) -> String {
        self.render(self.password.as_deref().map(encode).as_deref())
    }

    /// `password` is percent-encoded already.
    fn render(&self, password: Option<&str>) -> String {
        let mut url = String::from("postgresql://");
        if let Some(user) = &self.user {
            url.push_str(&encode(user));
        }
        if let Some(password) = password {
            url.push(':');
            url.push_str(password);
        }
        if self.user.is_some() || password.is_some() {
            url.push('@');
        }
        let hosts = self.hosts.iter().map(|host| match &host.name {
            HostName::Tcp(name) if name.contains(':') => format!("[{name}]:{}", host.port),
            HostName::Tcp(name) => format!("{name}:{}", host.port),
            HostName::Unix(path) => format!("{}:{}", encode(&path.to_string_lossy()), host.port),
        });
        url.push_str(&hosts.collect::<Vec<_>>().join(","));
        url.push('/');
        if let Some(database) = &self.database {
            url.push_str(&encode(database));
        }
        for (i, (key, value)) in self.libpq_parameters().into_iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(key);
            url.push('=');
            url.push_str(&encode(&value));
        }
        url
    }

    fn libpq_parameters(&self) -> Vec<(&'static str, String)> {
        let settings = &self.settings;
        let mut out = Vec::new();
        match &self.encryption {
            Encryption::Plain => out.push(("sslmode", "disable".to_owned())),
            Encryption::Tls {
                roots,
                channel_binding,
                ..
            } => {
                out.push(("sslmode", "verify-full".to_owned()));
                out.push(("sslrootcert", roots.to_libpq()));
                match channel_binding {
                    ChannelBinding::Disable => out.push(("channel_binding", "disable".to_owned())),
                    ChannelBinding::Prefer => {}
                    ChannelBinding::Require => out.push(("channel_binding", "require".to_owned())),
                }
            }
        }
        let addresses: Vec<_> = self.hosts.iter().filter_map(|host| host.address).collect();
        if !addresses.is_empty() {
            out.push((
                "hostaddr",
                addresses
                    .iter()
                    .map(IpAddr::to_string)
                    .collect::<Vec<_>>()
                    .join(","),
            ));
        }
        let mut push = |key, value: Option<String>| {
            if let Some(value) = value {
                out.push((key, value));
            }
        };
        let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs().to_string());
        push("options", settings.options.clone());
        push("application_name", settings.application_name.clone());
        push("connect_timeout", seconds(settings.connect_timeout));
        push(
            "target_session_attrs",
            settings.target_session_attrs.map(|attrs| match attrs {
                TargetSessionAttrs::ReadWrite => "read-write".to_owned(),
                TargetSessionAttrs::ReadOnly => "read-only".to_owned(),
                _ => "any".to_owned(),
            }),
        );
        push(
            "keepalives",
            settings.keepalives.map(|on| u8::from(on).to_string()),
        );
        push("keepalives_idle", seconds(settings.keepalives_idle));
        push("keepalives_interval", seconds(settings.keepalives_interval));
        push(
            "keepalives_count",
            settings.keepalives_count.map(|n| n.to_string()),
        );
        push(
            "tcp_user_timeout",
            settings.tcp_user_timeout.map(|d| d.as_millis().to_string()),
        );
        out
    }

    /// The same with a setting that the session starts with.
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

    /// The value of `endpoint=` (or its older name, `project=`) in `options`.
    fn endpoint_option(&self) -> Option<&str> {
        self.settings
            .options
            .as_deref()?
            .split_ascii_whitespace()
            .find_map(|word| {
                ENDPOINT_OPTIONS
                    .iter()
                    .find_map(|key| word.strip_prefix(key))
            })
    }

    fn map_endpoint(&self, map: impl Fn(&str) -> String) -> Self {
        let mut url = self.clone();
        for host in &mut url.hosts {
            if let HostName::Tcp(name) = &mut host.name {
                if name.parse::<IpAddr>().is_err() {
                    let label = first_label(name);
                    *name = format!("{}{}", map(label), &name[label.len()..]);
                }
            }
        }
        if let Some(options) = &mut url.settings.options {
            let words = options.split(' ').map(|word| {
                let key = ENDPOINT_OPTIONS.iter().find(|key| word.starts_with(*key));
                match key {
                    Some(key) => format!("{key}{}", map(&word[key.len()..])),
                    None => word.to_owned(),
                }
            });
            *options = words.collect::<Vec<_>>().join(" ");
        }
        url
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(self.password.as_ref().map(|_| "***")))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// What a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Endpoint {
    /// Postgres itself: sessions keep their state.
    Direct,
    /// PgBouncer in transaction mode: nothing of a session outlives a transaction.
    Pooled,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Pooled => "pooled",
        })
    }
}

/// One of a URL's hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// The name that certificates are checked against, or a socket's directory.
    pub name: HostName,
    /// `hostaddr`: where to connect instead of looking the name up.
    pub address: Option<IpAddr>,
    /// The TCP port, or the socket file's number.
    pub port: u16,
}

impl Host {
    fn is_neon(&self) -> bool {
        matches!(&self.name, HostName::Tcp(name) if name.ends_with(".neon.tech"))
    }

    fn is_unix(&self) -> bool {
        matches!(self.name, HostName::Unix(_))
    }

    fn is_local(&self) -> bool {
        match &self.name {
            HostName::Unix(_) => true,
            // By its name alone: a tunnel to a remote host still has that host's certificate to show.
            HostName::Tcp(name) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

/// A host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum HostName {
    /// A DNS name or an IP address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Encryption {
    /// Plain text: loopback and Unix sockets only.
    Plain,
    /// TLS with a verified chain and host name, always.
    Tls {
        /// Whom to trust.
        roots: Roots,
        /// Whether SCRAM is bound to the TLS session.
        channel_binding: ChannelBinding,
        /// How TLS begins.
        negotiation: Negotiation,
    },
}

/// `sslrootcert`: whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Roots {
    /// The system's roots, or Mozilla's bundled ones where the system has none.
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

impl Roots {
    fn to_libpq(&self) -> String {
        match self {
            Self::File(path) => path.to_string_lossy().into_owned(),
            Self::System => match openssl_probe::probe().cert_file {
                Some(path) => path.to_string_lossy().into_owned(),
                None => "system".to_owned(),
            },
        }
    }
}

/// `channel_binding`: whether SCRAM is bound to the TLS session, which unmasks a man in the middle
/// even if his certificate is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Or else the connection fails.
    Require,
}

/// `sslnegotiation`: how TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Negotiation {
    /// With the TLS handshake itself.
    Direct,
    /// With Postgres's SSLRequest, one round trip more; every server understands it.
    Postgres,
}

/// A URL that cannot be used; says what is wrong and how to mend it, and never quotes the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The text has no `postgresql://` in front.
    #[error("the database URL does not start with postgresql:// or postgres://")]
    Scheme,
    /// The parts cannot be told apart.
    #[error(
        "the database URL cannot be taken apart: percent-encode `/`, `?`, `#`, `@` and `%` in the user \
         name and the password (`@` becomes %40)"
    )]
    Malformed,
    /// A part is not UTF-8 once its percent-encoding is undone.
    #[error("the {part} of the database URL is not UTF-8")]
    NotUtf8 {
        /// Which part.
        part: &'static str,
    },
    /// There is no host.
    #[error("the database URL names no host")]
    NoHost,
    /// There are not as many ports or addresses as hosts.
    #[error("the database URL has {hosts} hosts, but {found} in `{key}`: give one for each host")]
    Count {
        /// The parameter that does not match.
        key: &'static str,
        /// How many values it has.
        found: usize,
        /// How many hosts there are.
        hosts: usize,
    },
    /// A parameter that neither libpq nor this crate knows.
    #[error("unknown parameter `{key}` in the database URL: remove it, or correct its spelling")]
    UnknownParameter {
        /// Its name.
        key: String,
    },
    /// A parameter of libpq that this crate cannot honour.
    #[error("the parameter `{key}` in the database URL is not supported here: remove it")]
    UnsupportedParameter {
        /// Its name.
        key: String,
    },
    /// A parameter has a value that it cannot have.
    #[error("the parameter `{key}` in the database URL must be {expected}")]
    InvalidValue {
        /// The parameter's name.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// The URL asks for less than verified TLS beyond loopback.
    #[error(
        "sslmode={mode} would let anybody on the way to {host} read and change the traffic: use \
         sslmode=verify-full (or require, which means the same here)"
    )]
    Insecure {
        /// The `sslmode`.
        mode: String,
        /// The first host that is not on this machine.
        host: String,
    },
    /// Channel binding or direct TLS was asked for together with plain text.
    #[error("`{key}` needs TLS: add sslmode=verify-full to the database URL")]
    NeedsTls {
        /// The parameter that needs TLS.
        key: &'static str,
    },
    /// The host is not a Neon endpoint, so its pooler is not known.
    #[error(
        "{host} is not a Neon endpoint (ep-….<region>.…neon.tech), so its pooled host is not known"
    )]
    NotAnEndpoint {
        /// The host.
        host: String,
    },
}

const POOLER: &str = "-pooler";
const ENDPOINT_OPTIONS: [&str; 2] = ["endpoint=", "project="];

// Silent peers are noticed after 60 + 3 × 10 s when idle, 30 s when data is under way.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(UrlError::NotUtf8 { part }),
    }
}

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Neon's console offers the URL inside `psql '…'`; people copy the whole line.
fn strip_psql(url: &str) -> &str {
    let url = url.trim();
    let url = url.strip_prefix("psql ").map_or(url, str::trim);
    for quote in ['\'', '"'] {
        if let Some(inner) = url.strip_prefix(quote).and_then(|u| u.strip_suffix(quote)) {
            return inner;
        }
    }
    url
}

/// The URL's parts with their percent-encoding undone, not yet looked at.
struct Parts {
    user: Option<String>,
    password: Option<String>,
    hosts: String,
    database: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Parts {
    fn split(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        if scheme != "postgres" && scheme != "postgresql" {
            return Err(UrlError::Scheme);
        }

        // `url` takes one host only, so the list is cut out first and looked at on its own.
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        let one_host = match userinfo {
            Some(userinfo) => format!("{scheme}://{userinfo}@host{tail}"),
            None => format!("{scheme}://host{tail}"),
        };
        let parsed = url::Url::parse(&one_host).map_err(|_| UrlError::Malformed)?;

        // An unencoded `/`, `?` or `#` in a password ends the authority too early: what follows must
        // not be taken for a database's or a parameter's name, and must not be shown.
        let swallowed = userinfo.is_none() && tail.contains('@');
        if swallowed || parsed.fragment().is_some() || parsed.path().contains('@') {
            return Err(UrlError::Malformed);
        }
        let path = parsed.path();
        let database = decode(path.strip_prefix('/').unwrap_or(path), "database name")?;
        let mut parameters = Vec::new();
        for pair in parsed.query().unwrap_or("").split('&') {
            if pair.is_empty() {
                continue;
            }
            let (key, value) = pair.split_once('=').ok_or(UrlError::Malformed)?;
            if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(UrlError::Malformed);
            }
            // Not form-encoding: libpq takes a `+` for a plus sign.
            parameters.push((key.to_owned(), decode(value, "query")?));
        }

        let not_empty = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            user: not_empty(decode(parsed.username(), "user name")?),
            password: match parsed.password() {
                Some(password) => not_empty(decode(password, "password")?),
                None => None,
            },
            hosts: hosts.to_owned(),
            database: not_empty(database),
            parameters,
        })
    }
}

/// What may be set in the query, still as text where it needs the other parts to be understood.
#[derive(Default)]
struct RawParameters {
    user: Option<String>,
    password: Option<String>,
    dbname: Option<String>,
    host: Option<String>,
    hostaddr: Option<String>,
    port: Option<String>,
    ssl: RawSsl,
    settings: Settings,
}

#[derive(Default)]
struct RawSsl {
    mode: Option<String>,
    roots: Option<String>,
    channel_binding: Option<ChannelBinding>,
    negotiation: Option<Negotiation>,
}

/// Parameters that go to the drivers as they are.
#[derive(Clone, Default, PartialEq, Eq)]
struct Settings {
    options: Option<String>,
    application_name: Option<String>,
    connect_timeout: Option<Duration>,
    target_session_attrs: Option<TargetSessionAttrs>,
    load_balance_hosts: Option<LoadBalanceHosts>,
    keepalives: Option<bool>,
    keepalives_idle: Option<Duration>,
    keepalives_interval: Option<Duration>,
    keepalives_count: Option<u32>,
    tcp_user_timeout: Option<Duration>,
}

impl RawParameters {
    fn set(&mut self, key: &str, value: &str, ignored: &mut Vec<String>) -> Result<(), UrlError> {
        let text = || Some(value.to_owned());
        let settings = &mut self.settings;
        match key {
            "user" => self.user = text(),
            "password" => self.password = text(),
            "dbname" => self.dbname = text(),
            "host" => self.host = text(),
            "hostaddr" => self.hostaddr = text(),
            "port" => self.port = text(),
            "sslmode" => {
                const MODES: [&str; 6] = [
                    "disable",
                    "allow",
                    "prefer",
                    "require",
                    "verify-ca",
                    "verify-full",
                ];
                if !MODES.contains(&value) {
                    return Err(UrlError::InvalidValue {
                        key: "sslmode",
                        expected: "verify-full, verify-ca or require (on loopback also disable, \
                                   allow or prefer)",
                    });
                }
                self.ssl.mode = text();
            }
            // libpq's own alias, from JDBC.
            "ssl" if value == "true" => self.ssl.mode = Some("require".to_owned()),
            "ssl" => {
                return Err(UrlError::InvalidValue {
                    key: "ssl",
                    expected: "true",
                });
            }
            "sslrootcert" => self.ssl.roots = text(),
            "channel_binding" => {
                self.ssl.channel_binding = Some(match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "channel_binding",
                            expected: "disable, prefer or require",
                        });
                    }
                });
            }
            "sslnegotiation" => {
                self.ssl.negotiation = Some(match value {
                    "direct" => Negotiation::Direct,
                    "postgres" => Negotiation::Postgres,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "sslnegotiation",
                            expected: "direct or postgres",
                        });
                    }
                });
            }
            "options" => settings.options = text(),
            "application_name" => settings.application_name = text(),
            "connect_timeout" => {
                let seconds: i64 = number("connect_timeout", value, "a number of seconds")?;
                // libpq: zero and less wait for ever, which here means the policy's own budget.
                settings.connect_timeout = u64::try_from(seconds)
                    .ok()
                    .filter(|s| *s > 0)
                    .map(Duration::from_secs);
            }
            "target_session_attrs" => {
                settings.target_session_attrs = Some(match value {
                    "any" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "target_session_attrs",
                            expected: "any, read-write, read-only, primary or standby",
                        });
                    }
                });
            }
            "load_balance_hosts" => {
                settings.load_balance_hosts = Some(match value {
                    "disable" => LoadBalanceHosts::Disable,
                    "random" => LoadBalanceHosts::Random,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "load_balance_hosts",
                            expected: "disable or random",
                        });
                    }
                });
            }
            "keepalives" => {
                settings.keepalives = Some(match value {
                    "0" => false,
                    "1" => true,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "keepalives",
                            expected: "0 or 1",
                        });
                    }
                });
            }
            "keepalives_idle" => settings.keepalives_idle = seconds("keepalives_idle", value)?,
            "keepalives_interval" => {
                settings.keepalives_interval = seconds("keepalives_interval", value)?;
            }
            "keepalives_count" => {
                let count: u32 = number("keepalives_count", value, "a number of probes")?;
                settings.keepalives_count = (count > 0).then_some(count);
            }
            "tcp_user_timeout" => {
                let millis: u64 = number("tcp_user_timeout", value, "a number of milliseconds")?;
                settings.tcp_user_timeout = (millis > 0).then_some(Duration::from_millis(millis));
            }
            "client_encoding" if is_utf8(value) => {}
            "client_encoding" => {
                return Err(UrlError::InvalidValue {
                    key: "client_encoding",
                    expected: "UTF8",
                });
            }
            "gssencmode" if value != "require" => {}
            key if ORM_PARAMETERS.contains(&key) => ignored.push(key.to_owned()),
            key if UNSUPPORTED.contains(&key) => {
                return Err(UrlError::UnsupportedParameter {
                    key: key.to_owned(),
                });
            }
            key => {
                return Err(UrlError::UnknownParameter {
                    key: key.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Prisma's, SQLAlchemy's and their like's settings that URLs from a dashboard carry.
const ORM_PARAMETERS: [&str; 6] = [
    "connection_limit",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "socket_timeout",
    "statement_cache_size",
];

/// libpq knows these; leaving one of them out silently could weaken or redirect a connection.
const UNSUPPORTED: [&str; 24] = [
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslsni",
];

fn is_utf8(value: &str) -> bool {
    ["utf8", "utf-8", "auto"]
        .iter()
        .any(|name| value.eq_ignore_ascii_case(name))
}

fn number<T: FromStr>(
    key: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, UrlError> {
    value
        .parse()
        .map_err(|_| UrlError::InvalidValue { key, expected })
}

/// Zero means the system's default, in libpq.
fn seconds(key: &'static str, value: &str) -> Result<Option<Duration>, UrlError> {
    let seconds: u64 = number(key, value, "a number of seconds")?;
    Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
}

fn list_of<T: FromStr>(
    key: &'static str,
    list: Option<&str>,
    expected: &'static str,
) -> Result<Vec<T>, UrlError> {
    let items = list.into_iter().flat_map(|list| list.split(','));
    items.map(|item| number(key, item, expected)).collect()
}

/// Either every host has an address or none has.
fn hosts(list: &str, addresses: Option<&str>, ports: Option<&str>) -> Result<Vec<Host>, UrlError> {
    let addresses: Vec<IpAddr> = list_of("hostaddr", addresses, "one IP address for each host")?;
    let ports: Vec<u16> = list_of("port", ports, "one number from 1 to 65535 for each host")?;

    let names: Vec<&str> = match list {
        "" => vec![""; addresses.len()],
        list => list.split(',').collect(),
    };
    for (key, found) in [("hostaddr", addresses.len()), ("port", ports.len())] {
        let fits = found == 0 || found == names.len() || (key == "port" && found == 1);
        if !fits {
            return Err(UrlError::Count {
                key,
                found,
                hosts: names.len(),
            });
        }
    }

    let hosts = names.iter().enumerate().map(|(i, text)| {
        let address = addresses.get(i).copied();
        let (name, port) = host_and_port(text)?;
        let name = match (name.as_str(), address) {
            ("", None) => return Err(UrlError::NoHost),
            ("", Some(address)) => HostName::Tcp(address.to_string()),
            (name, _) if name.starts_with('/') => HostName::Unix(Path::new(name).to_owned()),
            (name, _) => HostName::Tcp(name.to_ascii_lowercase()),
        };
        let listed = ports.get(i).or_else(|| ports.first()).copied();
        Ok(Host {
            name,
            address,
            port: port.or(listed).unwrap_or(5432),
        })
    });
    let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    let sockets = hosts.iter().filter(|host| host.is_unix()).count();
    match hosts.len() {
        0 => Err(UrlError::NoHost),
        all if sockets == 0 || sockets == all => Ok(hosts),
        _ => Err(UrlError::InvalidValue {
            key: "host",
            expected: "either TCP hosts or Unix sockets, not both",
        }),
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or(UrlError::Malformed)?;
            (name, port.strip_prefix(':').unwrap_or(port))
        }
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let name = decode(name, "host")?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    if !name.starts_with('/') && !name.bytes().all(is_name) {
        return Err(UrlError::Malformed);
    }
    let port = match port {
        "" => None,
        // Not `InvalidValue`: what stands here may be half a password.
        port => Some(port.parse().map_err(|_| UrlError::Malformed)?),
    };
    if port == Some(0) {
        return Err(UrlError::Malformed);
    }
    Ok((name, port))
}

fn encryption(hosts: &[Host], ssl: RawSsl) -> Result<Encryption, UrlError> {
    let remote = hosts.iter().find(|host| !host.is_local());
    let weak = ["disable", "allow", "prefer"];
    let tls = match (&ssl.mode, remote) {
        (Some(mode), Some(remote)) if weak.contains(&mode.as_str()) => {
            return Err(UrlError::Insecure {
                mode: mode.clone(),
                host: remote.name.to_string(),
            });
        }
        // Postgres speaks no TLS over Unix sockets.
        _ if hosts
            .iter()
            .all(|host| matches!(host.name, HostName::Unix(_))) =>
        {
            false
        }
        (Some(mode), _) => !weak.contains(&mode.as_str()),
        (None, remote) => remote.is_some(),
    };

    if !tls {
        if ssl.channel_binding == Some(ChannelBinding::Require) {
            return Err(UrlError::NeedsTls {
                key: "channel_binding",
            });
        }
        if ssl.negotiation == Some(Negotiation::Direct) {
            return Err(UrlError::NeedsTls {
                key: "sslnegotiation",
            });
        }
        return Ok(Encryption::Plain);
    }

    Ok(Encryption::Tls {
        roots: match ssl.roots.as_deref() {
            None | Some("system" | "") => Roots::System,
            Some(path) => Roots::File(path.into()),
        },
        channel_binding: ssl.channel_binding.unwrap_or(ChannelBinding::Prefer),
        negotiation: ssl
            .negotiation
            .unwrap_or(match hosts.iter().all(Host::is_neon) {
                true => Negotiation::Direct,
                false => Negotiation::Postgres,
            }),
    })
}
