//! Renders a URL for the drivers, and for people.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::config::{self as pg, TargetSessionAttrs};

use super::tls::Plaintext;
use super::{ChannelBinding, DatabaseUrl, Encryption, HostName, RootCertificates, SslNegotiation};

impl DatabaseUrl {
    /// Renders for tokio-postgres.
    ///
    /// `sslmode` becomes `require` for TLS, the most that this driver knows (the rustls configuration
    /// verifies the chain and the name), and `disable` for plain text. If the URL has no TCP keepalives and
    /// no `tcp_user_timeout`, defaults are set, so that a vanished peer is noticed within half a minute;
    /// the kernel sends these probes, and they keep no compute awake.
    ///
    /// The result holds the password; its `Debug` does not show it. tokio-postgres resolves the hosts' names
    /// by itself: see [`check_address`](Self::check_address) for plain text.
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
                        SslNegotiation::Direct => pg::SslNegotiation::Direct,
                        SslNegotiation::Postgres => pg::SslNegotiation::Postgres,
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
    ///
    /// Plain text becomes `sslmode=disable` for Unix sockets, for loopback, and for addresses on an allowed
    /// private network. If a host is a *name* that plain text may reach only on a private network, it becomes
    /// `verify-full` all the same, since libpq does not check the address that the name resolves to. Put
    /// that address into `hostaddr` to have libpq send plain text.
    pub fn to_libpq(&self) -> String {
        let is_near = |host| self.plaintext.surely_includes(host);
        let protection = match &self.encryption {
            Encryption::Plain if !self.hosts.iter().all(is_near) => {
                verify_full(&RootCertificates::System)
            }
            encryption => protection(encryption),
        };
        self.render(self.password.as_deref().map(encode).as_deref(), protection)
    }

    /// Renders with a `password` that is percent-encoded already.
    fn render(&self, password: Option<&str>, protection: Vec<(&'static str, String)>) -> String {
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
        for (i, (key, value)) in self.parameters(protection).into_iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(key);
            url.push('=');
            url.push_str(&encode(&value));
        }
        url
    }

    fn parameters(&self, mut out: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
        let settings = &self.settings;
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
}

/// Renders as for libpq, without the password, and with `allow_plaintext_to_private_network`, `transport`,
/// `https_port` and `pipeline_login`, which libpq does not know.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut protection = protection(&self.encryption);
        if self.allows_plaintext_to_private_network() {
            protection.push((Plaintext::PARAMETER, "true".to_owned()));
        }
        if let Some(transport) = self.settings.transport {
            protection.push(("transport", transport.to_string()));
        }
        if let Some(port) = self.settings.https_port {
            protection.push(("https_port", port.to_string()));
        }
        if let Some(pipelined) = self.settings.pipeline_login {
            protection.push(("pipeline_login", pipelined.to_string()));
        }
        let password = self.password.as_ref().map(|_| "***");
        f.write_str(&self.render(password, protection))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

fn protection(encryption: &Encryption) -> Vec<(&'static str, String)> {
    match encryption {
        Encryption::Plain => vec![("sslmode", "disable".to_owned())],
        Encryption::Tls {
            roots,
            channel_binding,
            ..
        } => {
            let mut out = verify_full(roots);
            match channel_binding {
                ChannelBinding::Disable => out.push(("channel_binding", "disable".to_owned())),
                ChannelBinding::Prefer => {}
                ChannelBinding::Require => out.push(("channel_binding", "require".to_owned())),
            }
            out
        }
    }
}

fn verify_full(roots: &RootCertificates) -> Vec<(&'static str, String)> {
    vec![
        ("sslmode", "verify-full".to_owned()),
        ("sslrootcert", roots.to_libpq()),
    ]
}

impl RootCertificates {
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

// Keepalive notices a vanished machine after 15 + 3 × 5 s of silence; TCP_USER_TIMEOUT does if data are unacknowledged.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}
