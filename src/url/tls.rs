//! [`Encryption`]: how a connection is protected, and which hosts plain text may reach.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::network::{is_loopback, is_private};
use super::{Host, HostName, UrlError};

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encryption {
    /// Plain text, for Unix sockets and for the addresses that
    /// [`check_address`](crate::DatabaseUrl::check_address) accepts.
    Plain,
    /// TLS with a verified chain and host name, always.
    #[non_exhaustive]
    Tls {
        /// The root certificates to trust.
        roots: RootCertificates,
        /// Whether SCRAM is bound to the TLS session.
        channel_binding: ChannelBinding,
        /// How TLS begins.
        negotiation: SslNegotiation,
    },
}

/// `sslrootcert`: the root certificates to trust.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootCertificates {
    /// The system's root certificates, or Mozilla's bundled ones if the system has none.
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

/// `channel_binding`: whether SCRAM is bound to the TLS session. The binding exposes a man in the middle
/// even if his certificate is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum ChannelBinding {
    /// SCRAM is never bound.
    Disable,
    /// SCRAM is bound if the server offers it.
    Prefer,
    /// The connection fails if the server does not bind SCRAM.
    Require,
}

/// Displays as the value of `channel_binding`.
impl fmt::Display for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        })
    }
}

/// `sslnegotiation`: how TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum SslNegotiation {
    /// The TLS handshake comes first.
    Direct,
    /// Postgres's SSLRequest comes first: one more round trip, which every server understands.
    Postgres,
}

/// Displays as the value of `sslnegotiation`.
impl fmt::Display for SslNegotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Postgres => "postgres",
        })
    }
}

/// The addresses that plain text may be sent to if a URL asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plaintext {
    #[default]
    Loopback,
    PrivateNetwork,
}

impl Plaintext {
    pub(super) const PARAMETER: &'static str = "allow_plaintext_to_private_network";

    pub(super) fn includes(self, address: IpAddr) -> bool {
        is_loopback(address) || self == Self::PrivateNetwork && is_private(address)
    }

    /// Returns whether plain text may reach `host`, as far as the URL shows: a name resolves on dialling.
    fn may_include(self, host: &Host) -> bool {
        self.surely_includes(host) || self == Self::PrivateNetwork && host.known_address().is_none()
    }

    /// Returns whether plain text may reach `host` whatever its name resolves to.
    pub(super) fn surely_includes(self, host: &Host) -> bool {
        match (&host.name, host.known_address()) {
            (HostName::Unix(_), _) => true,
            (HostName::Tcp(_), Some(address)) => self.includes(address),
            (HostName::Tcp(name), None) => name == "localhost",
        }
    }
}

/// The query's parameters about TLS, as they are written.
#[derive(Default)]
pub(super) struct RawSsl {
    pub(super) mode: Option<String>,
    pub(super) roots: Option<String>,
    pub(super) channel_binding: Option<ChannelBinding>,
    pub(super) negotiation: Option<SslNegotiation>,
}

/// Decides on one protection for all of `hosts`.
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
