//! [`DatabaseUrl`]: where a database is and how to reach it, parsed once.

mod endpoint;
mod error;
mod host;
#[cfg(feature = "http")]
mod http;
mod network;
mod parameters;
mod parse;
mod render;
mod tls;
mod transport;

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

#[cfg(feature = "url")]
use ::url::Url;

pub use self::endpoint::Endpoint;
pub use self::error::UrlError;
pub use self::host::{Host, HostName};
use self::parameters::{RawParameters, Settings};
use self::parse::{Parts, not_empty};
use self::tls::Plaintext;
pub use self::tls::{ChannelBinding, Encryption, RootCertificates, SslNegotiation};
pub use self::transport::TransportMode;

/// A Postgres URL that is known to be usable: every parameter is understood, and beyond loopback the URL
/// asks for verified TLS.
///
/// A `DatabaseUrl` takes the output of Neon's console, `neonctl` and the Vercel integration (also with the
/// `psql '…'` around it), and libpq's parameters. The two drivers of a Diesel project want different
/// spellings, so it renders for each: [`to_tokio_postgres`](Self::to_tokio_postgres) for
/// the app, [`to_libpq`](Self::to_libpq) for the `diesel` CLI and `psql`.
///
/// `Debug` and `Display` never show the password.
///
/// A URL that is accepted means the same to libpq, several hosts included. A part that is not understood is
/// an error, never a guess. Spaces around the URL and a pair of quotation marks are taken off.
///
/// | parameter | meaning |
/// |---|---|
/// | `user`, `password`, `dbname`, `host`, `hostaddr`, `port` | replace the parts in front of the `?`; a host that is a Unix socket's folder has no `hostaddr` |
/// | `sslmode` | `require`, `verify-ca`, `verify-full` and none at all mean `verify-full`; `disable`, `allow` and `prefer` mean plain text, and are an error beyond loopback (see [`check_address`](Self::check_address)) |
/// | `allow_plaintext_to_private_network` | `true`: plain text, if `sslmode` asks for it, may go to private addresses too; default `false`. See [`parse_allowing_plaintext_to_private_network`](Self::parse_allowing_plaintext_to_private_network) |
/// | `sslrootcert` | a PEM file, or `system` |
/// | `channel_binding` | `disable`, `prefer` (default), `require` |
/// | `sslnegotiation` | `postgres`, `direct`; default: `direct` for Neon's hosts (saves a round trip), else `postgres` |
/// | `options`, `application_name`, `target_session_attrs`, `load_balance_hosts` | as in libpq |
/// | `keepalives`, `keepalives_idle`, `keepalives_interval` (seconds), `keepalives_count` (or `keepalives_retries`, as tokio-postgres calls it) | as in libpq; default: on, 15 s, 5 s, 3 probes; more than 32767 s or 127 probes, Linux's limits, count as these |
/// | `connect_timeout` | seconds, up to 2147483647; the budget for a whole connection, see [`Policy`](crate::Policy) |
/// | `tcp_user_timeout` | milliseconds, as in libpq (tokio-postgres reads seconds); default: 30 s |
/// | `transport` | `tcp` (default), `websocket`, `auto`: see [`TransportMode`] |
/// | `https_port` | the port of the WebSocket; default: 443 |
/// | `pipeline_login` | `true`: the first statement leaves without waiting for the answer to the login; default `false`. See [`with_pipelined_login`](Self::with_pipelined_login) |
/// | `sslaccept` | Prisma's: `strict` is left out, as it changes nothing; other values are an error |
/// | `pgbouncer`, `connection_limit`, `pool_timeout`, `schema`, `statement_cache_size`, `socket_timeout`, `supa`, `uselibpqcompat` and the like | other tools' settings: left out and listed by [`ignored`](Self::ignored) |
/// | others of libpq's | [`UrlError::UnsupportedParameter`]: leaving one out could weaken or redirect the connection |
/// | any other | [`UrlError::UnknownParameter`] |
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    hosts: Vec<Host>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    encryption: Encryption,
    plaintext: Plaintext,
    settings: Settings,
    ignored: Vec<String>,
}

impl DatabaseUrl {
    /// Parses a URL that starts with `postgres://` or `postgresql://`.
    ///
    /// # Errors
    ///
    /// Returns a [`UrlError`] that names the fault and the mend, and never quotes the URL.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        Self::parse_with(url, Plaintext::Loopback)
    }

    /// Parses a URL, and allows plain text to private and link-local addresses if its `sslmode` asks for
    /// it; never to public ones.
    ///
    /// Use this for a Postgres without TLS in a network of its own, such as the `postgres:5432` of a compose
    /// file or a sidecar. **Everybody else on that network can read the password and all data, and
    /// change them.** The default is to refuse. The URL can say the same with
    /// `allow_plaintext_to_private_network=true`; libpq does not know that parameter and refuses the URL.
    ///
    /// Each address that a host's name resolves to is checked on dialling; see
    /// [`check_address`](Self::check_address). Private are 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and
    /// fc00::/7 (RFC 1918 and RFC 4193), link-local 169.254.0.0/16 and fe80::/10.
    ///
    /// # Errors
    ///
    /// Returns a [`UrlError`], as [`parse`](Self::parse) does.
    ///
    /// ```
    /// # use diesel_neon::{DatabaseUrl, UrlError};
    /// let compose = "postgresql://app:secret@postgres:5432/db?sslmode=disable";
    /// assert!(matches!(DatabaseUrl::parse(compose), Err(UrlError::Insecure { .. })));
    ///
    /// let url = DatabaseUrl::parse_allowing_plaintext_to_private_network(compose)?;
    /// assert!(url.check_address("172.18.0.2".parse().unwrap()).is_ok());
    /// assert!(url.check_address("203.0.113.5".parse().unwrap()).is_err());
    /// # Ok::<(), UrlError>(())
    /// ```
    pub fn parse_allowing_plaintext_to_private_network(url: &str) -> Result<Self, UrlError> {
        Self::parse_with(url, Plaintext::PrivateNetwork)
    }

    fn parse_with(url: &str, plaintext: Plaintext) -> Result<Self, UrlError> {
        let parts = Parts::split(url)?;
        let raw = RawParameters::read(&parts.parameters)?;
        let list = |text: String| match text.as_str() {
            "" => Vec::new(),
            list => list.split(',').map(str::to_owned).collect(),
        };
        let hosts = host::hosts(
            raw.host.map_or(parts.hosts, list),
            raw.hostaddr.as_deref(),
            &raw.port.map_or(parts.ports, list),
        )?;
        let allowed = plaintext.max(raw.plaintext);
        let encryption = tls::encryption(&hosts, raw.ssl, allowed)?;
        let transport = raw.settings.transport.unwrap_or_default();
        transport.check(&hosts, &encryption)?;
        Ok(Self {
            plaintext: match encryption {
                Encryption::Plain => allowed,
                Encryption::Tls { .. } => Plaintext::default(),
            },
            encryption,
            hosts,
            // In libpq an empty parameter overrides the part in front of the `?` and counts as absent.
            user: raw.user.or(parts.user).and_then(not_empty),
            password: raw.password.or(parts.password).and_then(not_empty),
            database: raw.dbname.or(parts.database).and_then(not_empty),
            settings: raw.settings,
            ignored: raw.ignored,
        })
    }

    /// Checks that a connection to `address`, to which the name of a host has resolved, may be protected as
    /// [`encryption`](Self::encryption) says.
    ///
    /// TLS may go to any address. [`Encryption::Plain`] may go to loopback addresses; to private and
    /// link-local ones too if
    /// [plain text to a private network](Self::parse_allowing_plaintext_to_private_network) is allowed;
    /// never to public ones. A URL alone cannot tell: `localhost` is only a name. The pool checks
    /// every address before it connects; check it too if you connect with
    /// [`to_tokio_postgres`](Self::to_tokio_postgres) by hand.
    ///
    /// # Errors
    ///
    /// Returns [`UrlError::PlaintextAddress`], which names the address.
    ///
    /// ```
    /// # use diesel_neon::DatabaseUrl;
    /// let url = DatabaseUrl::parse("postgresql://app@localhost/db").unwrap();
    /// assert!(url.check_address("127.0.0.1".parse().unwrap()).is_ok());
    /// assert!(url.check_address("203.0.113.5".parse().unwrap()).is_err());
    /// ```
    pub fn check_address(&self, address: IpAddr) -> Result<(), UrlError> {
        match self.encryption {
            Encryption::Tls { .. } => Ok(()),
            Encryption::Plain if self.plaintext.includes(address) => Ok(()),
            Encryption::Plain => Err(UrlError::PlaintextAddress {
                address,
                private_allowed: self.allows_plaintext_to_private_network(),
            }),
        }
    }

    /// Returns whether plain text may go to private addresses too.
    pub fn allows_plaintext_to_private_network(&self) -> bool {
        self.plaintext == Plaintext::PrivateNetwork
    }

    /// Returns the hosts, in the order in which they are tried.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Returns the user name; if it is absent, the drivers take the operating system's.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the password, in the clear.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Returns the same URL for a program that gets the password another way, such as `PGPASSWORD`.
    #[must_use]
    pub fn without_password(&self) -> Self {
        Self {
            password: None,
            ..self.clone()
        }
    }

    /// Returns the name of the database; if it is absent, the drivers take the user's name.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Returns how the connection is protected.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// Returns `connect_timeout`, if the URL has one.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.settings.connect_timeout
    }

    /// Returns how bytes reach the server.
    pub fn transport(&self) -> TransportMode {
        self.settings.transport.unwrap_or_default()
    }

    /// Returns whether the URL says itself how bytes reach the server.
    pub(crate) fn names_transport(&self) -> bool {
        self.settings.transport.is_some()
    }

    /// Returns the same URL for another way to the server.
    ///
    /// # Errors
    ///
    /// Returns a [`UrlError`] if the URL's other parts rule that way out, or if it needs a feature that is not enabled.
    pub fn with_transport(&self, transport: TransportMode) -> Result<Self, UrlError> {
        transport.check(&self.hosts, &self.encryption)?;
        let mut url = self.clone();
        url.settings.transport = Some(transport);
        Ok(url)
    }

    /// Returns the same URL with another channel binding; a URL for plain text has none, and stays as it is.
    ///
    /// # Errors
    ///
    /// Returns [`UrlError::ChannelBinding`] if the URL's way to the server cannot hold it.
    pub fn with_channel_binding(&self, wanted: ChannelBinding) -> Result<Self, UrlError> {
        let mut url = self.clone();
        if let Encryption::Tls {
            channel_binding, ..
        } = &mut url.encryption
        {
            *channel_binding = wanted;
        }
        url.transport().check(&url.hosts, &url.encryption)?;
        Ok(url)
    }

    /// Returns the port for the WebSocket. Default: 443.
    pub fn https_port(&self) -> u16 {
        self.settings.https_port.unwrap_or(443)
    }

    /// Returns whether the first statement leaves without waiting for the answer to the login.
    pub fn pipelines_login(&self) -> bool {
        self.settings.pipeline_login.unwrap_or_default()
    }

    /// Returns the same URL with `pipeline_login` set, or not.
    ///
    /// A [`Connection`](crate::Connection) is then handed out, by a pool or by `establish`, once the client has sent its
    /// last message of the login, and its first statement leaves without waiting for the answer. That saves a round trip,
    /// which counts where each connection runs few statements, as in a function that starts for one request: from a new
    /// connection to the first row, 2 round trips instead of 3 over a WebSocket, and 4 instead of 5 over TCP with
    /// `sslnegotiation=direct`. Default: `false`, since errors come later:
    ///
    /// - A refused login is the error of the first statement instead of the connect; it has the
    ///   [`ConnectError`](crate::ConnectError)
    ///   ([`connect_error`](crate::DatabaseErrorExt::connect_error)). What passes, such as a compute that does not wake at
    ///   once, is tried again within `connect_timeout` as ever, and the statement is sent again with it: a statement
    ///   behind a refused login has not run. One whose future was dropped meanwhile is sent by no other login.
    /// - If the connection is lost before the login is answered, or `connect_timeout` is over, the statement may have run.
    ///   It is not sent again, and its error says so. Without this setting, nothing of it is sent before.
    /// - Once the statement has left, no other address or host is let in unless the server refuses the login. One that
    ///   hangs right there costs the rest of `connect_timeout`, where others would have been tried without this setting.
    /// - The time zone that Diesel counts on is set in front of the first statement, and the server's settings
    ///   ([`parameter`](crate::Connection::parameter)) are not known before its answer.
    ///
    /// The server's certificate is verified before anything is sent; that it knows the password, as SCRAM proves, is known
    /// only with its answer. The server must read on behind a login, as Neon's proxy, Postgres and PgBouncer do. The login is waited for where
    /// something is to be asked first: for `target_session_attrs`, for a pool's `after_connect`, by a
    /// [`ConnectionManager`](crate::ConnectionManager), and for [`AsyncPgConnection`](diesel_async::AsyncPgConnection).
    #[must_use]
    pub fn with_pipelined_login(&self, pipelined: bool) -> Self {
        let mut url = self.clone();
        url.settings.pipeline_login = Some(pipelined);
        url
    }

    /// Returns the names of other tools' parameters, which are left out of this URL.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Returns whether every host is one of Neon's own (`*.neon.tech`).
    pub fn is_neon(&self) -> bool {
        self.hosts.iter().all(Host::is_neon)
    }

    /// Returns the same URL with one more setting for the start of the session.
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

/// Takes configuration that is read as a [`Url`]. Unlike [`DatabaseUrl::parse`], the parser of `Url` has dropped tabs
/// and line breaks, and resolved dot segments.
#[cfg(feature = "url")]
impl TryFrom<&Url> for DatabaseUrl {
    type Error = UrlError;

    fn try_from(url: &Url) -> Result<Self, UrlError> {
        Self::parse(url.as_str())
    }
}

impl TryFrom<&str> for DatabaseUrl {
    type Error = UrlError;

    fn try_from(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl TryFrom<&String> for DatabaseUrl {
    type Error = UrlError;

    fn try_from(url: &String) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = UrlError;

    fn try_from(url: String) -> Result<Self, UrlError> {
        Self::parse(&url)
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}
