//! How a connection is protected.

use std::path::PathBuf;

use super::{Host, HostName, UrlError};

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

#[derive(Default)]
pub(super) struct RawSsl {
    pub(super) mode: Option<String>,
    pub(super) roots: Option<String>,
    pub(super) channel_binding: Option<ChannelBinding>,
    pub(super) negotiation: Option<Negotiation>,
}

pub(super) fn encryption(hosts: &[Host], ssl: RawSsl) -> Result<Encryption, UrlError> {
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
