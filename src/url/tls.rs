//! How a connection is protected.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{DatabaseUrl, Host, HostName, UrlError};

impl DatabaseUrl {
    /// Checks that a connection to `address`, where one of the hosts' names has led, may be made as
    /// [`encryption`](Self::encryption) says.
    ///
    /// With TLS it may lead anywhere. [`Encryption::Plain`] is for loopback addresses; for private and
    /// link-local ones too where
    /// [plain text to a private network](Self::parse_allowing_plaintext_to_private_network) is allowed;
    /// never for public ones. A URL alone cannot tell: `localhost` is only a name. The pool asks this of
    /// every address before it connects. Whoever connects with
    /// [`to_tokio_postgres`](Self::to_tokio_postgres) by hand does well to ask as well.
    ///
    /// # Errors
    ///
    /// [`UrlError::PlaintextAddress`] names the address.
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
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Encryption {
    /// Plain text: Unix sockets, and the addresses that
    /// [`check_address`](DatabaseUrl::check_address) takes.
    Plain,
    /// TLS with a verified chain and host name, always.
    Tls {
        /// Whom to trust.
        roots: RootCertificates,
        /// Whether SCRAM is bound to the TLS session.
        channel_binding: ChannelBinding,
        /// How TLS begins.
        negotiation: SslNegotiation,
    },
}

/// `sslrootcert`: whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum RootCertificates {
    /// The system's roots, or Mozilla's bundled ones where the system has none.
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
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
pub enum SslNegotiation {
    /// With the TLS handshake itself.
    Direct,
    /// With Postgres's SSLRequest, one round trip more; every server understands it.
    Postgres,
}

/// Which addresses plain text may be sent to, where a URL asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plaintext {
    #[default]
    Loopback,
    PrivateNetwork,
}

impl Plaintext {
    /// `allow_plaintext_to_private_network`.
    pub(super) const PARAMETER: &'static str = "allow_plaintext_to_private_network";

    pub(super) fn includes(self, address: IpAddr) -> bool {
        is_loopback(address) || self == Self::PrivateNetwork && is_private(address)
    }

    /// Whether `host` is within, as far as the URL shows; where a name leads is only known on dialling.
    fn may_include(self, host: &Host) -> bool {
        self.surely_includes(host) || self == Self::PrivateNetwork && host.known_address().is_none()
    }

    /// Whether `host` is within, whoever looks its name up.
    pub(super) fn surely_includes(self, host: &Host) -> bool {
        match (&host.name, host.known_address()) {
            (HostName::Unix(_), _) => true,
            (HostName::Tcp(_), Some(address)) => self.includes(address),
            (HostName::Tcp(name), None) => name == "localhost",
        }
    }
}

pub(super) fn is_loopback(address: IpAddr) -> bool {
    // ::ffff:127.0.0.1 is dialled as 127.0.0.1.
    address.to_canonical().is_loopback()
}

/// RFC 1918's and RFC 4193's addresses, and link-local ones.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What the query says of TLS.
#[derive(Default)]
pub(super) struct RawSsl {
    pub(super) mode: Option<String>,
    pub(super) roots: Option<String>,
    pub(super) channel_binding: Option<ChannelBinding>,
    pub(super) negotiation: Option<SslNegotiation>,
}

/// Decides on the one protection that all of `hosts` are reached with.
pub(super) fn encryption(
    hosts: &[Host],
    ssl: RawSsl,
    plaintext: Plaintext,
) -> Result<Encryption, UrlError> {
    let weak = |mode: &str| ["disable", "allow", "prefer"].contains(&mode);
    let tls = match &ssl.mode {
        // Postgres speaks no TLS over Unix sockets.
        _ if hosts.iter().all(Host::is_unix) => false,
        Some(mode) if weak(mode) => {
            if let Some(beyond) = hosts.iter().find(|host| !plaintext.may_include(host)) {
                return Err(UrlError::Insecure {
                    mode: mode.clone(),
                    host: beyond.name.to_string(),
                    address: beyond.address,
                });
            }
            false
        }
        Some(_) => true,
        None => !hosts.iter().all(Host::is_local),
    };

    if !tls {
        if ssl.channel_binding == Some(ChannelBinding::Require) {
            return Err(UrlError::NeedsTls {
                key: "channel_binding",
            });
        }
        if ssl.negotiation == Some(SslNegotiation::Direct) {
            return Err(UrlError::NeedsTls {
                key: "sslnegotiation",
            });
        }
        return Ok(Encryption::Plain);
    }

    Ok(Encryption::Tls {
        roots: match ssl.roots.as_deref() {
            None | Some("system" | "") => RootCertificates::System,
            Some(path) => RootCertificates::File(path.into()),
        },
        channel_binding: ssl.channel_binding.unwrap_or(ChannelBinding::Prefer),
        negotiation: ssl
            .negotiation
            .unwrap_or(match hosts.iter().all(Host::is_neon) {
                true => SslNegotiation::Direct,
                false => SslNegotiation::Postgres,
            }),
    })
}
