//! [`UrlError`]: why a URL cannot be used.

use std::net::IpAddr;

use super::network::{is_neon, is_private};

/// A URL cannot be used.
///
/// The message names the fault and the mend. It never quotes the URL; it shows the name of a parameter
/// only if that cannot be a part of the password.
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The text has no `postgresql://` in front.
    #[error("the database URL does not start with postgresql:// or postgres://")]
    Scheme,
    /// Words follow the URL, as in `psql 'URL' -c '…'`; they could mean another database.
    #[error("more words follow the database URL: give the URL alone, without psql's arguments")]
    MoreWords,
    /// A quotation mark stands in front of the URL, and none behind it.
    #[error("the quotation mark in front of the database URL has no counterpart behind it")]
    Quote,
    /// An `@`, `?` or `#` allows two readings of the user name and the password.
    #[error(
        "the database URL cannot be taken apart: percent-encode `/`, `?`, `#`, `@` and `%` in the user \
         name and the password (`@` becomes %40), and `@` in every other part"
    )]
    Malformed,
    /// The URL was copied from HTML's source.
    #[error("the database URL has `&amp;` in place of `&`: replace it")]
    Html,
    /// The URL has a `#`, which ends a URL for other programs but not for libpq.
    #[error(
        "the database URL has a `#`, and no fragment belongs there: remove it with the text behind it, or \
         write %23 if it is part of a name or a value"
    )]
    Fragment,
    /// The URL has a space, a tab or another control character that is not percent-encoded.
    #[error(
        "the {part} in the database URL has a space, a tab, a line break or the like: remove it, or \
         percent-encode it (a space becomes %20)"
    )]
    Whitespace {
        /// The part of the URL.
        part: &'static str,
    },
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "the {part} in the database URL has a `%` without two hexadecimal digits behind it: a percent \
         sign itself becomes %25"
    )]
    Percent {
        /// The part of the URL.
        part: &'static str,
    },
    /// The URL has a `%00`.
    #[error("the {part} in the database URL has a %00, which Postgres cannot take: remove it")]
    ZeroByte {
        /// The part of the URL.
        part: &'static str,
    },
    /// A part is not UTF-8 once its percent-encoding is undone.
    #[error("the {part} in the database URL is not UTF-8: percent-encode its UTF-8 bytes")]
    NotUtf8 {
        /// The part of the URL.
        part: &'static str,
    },
    /// The URL has no host.
    #[error("the database URL names no host")]
    NoHost,
    /// A host's name has a character that host names cannot have.
    #[error(
        "a host in the database URL is neither a name (ASCII letters, digits, `-`, `.`, `_`) nor an \
         address: correct it; a port goes into the parameter `port`, not into `host`"
    )]
    Host,
    /// A host's name is not in ASCII.
    #[error(
        "a host in the database URL is not in ASCII: write an international name in its encoded form, with \
         xn-- in front"
    )]
    HostNotAscii,
    /// An IPv6 address in front of the path has no brackets, or brackets hold something else.
    #[error(
        "the database URL has an IPv6 address without brackets, or brackets without one: write [::1] or \
         [::1]:5432"
    )]
    Ipv6,
    /// An IPv6 address has a zone, as in `fe80::1%eth0`.
    #[error(
        "an IPv6 address with a zone (`%…`) in the database URL is not supported: leave the zone out"
    )]
    ZoneId,
    /// A port is not a port number.
    #[error("a port in the database URL is not a number from 1 to 65535")]
    Port,
    /// The numbers of hosts and of ports or addresses differ.
    #[error("the database URL has {hosts} hosts, but {found} in `{key}`: give one for each host")]
    Count {
        /// The parameter that does not match.
        key: &'static str,
        /// The number of its values.
        found: usize,
        /// The number of hosts.
        hosts: usize,
    },
    /// A host is the folder of a Unix socket and has a `hostaddr`, which libpq would dial instead.
    #[error(
        "the database URL has a Unix socket's folder as its host, and an address in `hostaddr`: remove one"
    )]
    SocketWithAddress,
    /// A parameter has no `=`.
    #[error(
        "a parameter in the database URL has no `=`: write key=value, and an `&` inside a value as %26"
    )]
    NoValue,
    /// A parameter has more than one `=`.
    #[error(
        "a parameter in the database URL has more than one `=`: inside a value, write it as %3D"
    )]
    EqualsSign,
    /// Neither libpq nor this crate knows the parameter.
    #[error("unknown parameter `{key}` in the database URL: remove it, or correct its spelling")]
    UnknownParameter {
        /// Its name.
        key: String,
    },
    /// A parameter is unknown, and its name is not shown: it follows `password=`, or it is no name.
    #[error(
        "unknown parameter in the database URL (not shown, as it may be a piece of the password): \
         percent-encode `&` in the password (%26), and remove the parameter if it is one"
    )]
    HiddenParameter,
    /// This crate cannot honour the parameter, which is libpq's or another driver's.
    #[error("the parameter `{key}` in the database URL is not supported here: remove it")]
    UnsupportedParameter {
        /// Its name.
        key: String,
    },
    /// A parameter's value is not among those that it takes.
    #[error("the parameter `{key}` in the database URL must be {expected}")]
    InvalidValue {
        /// The parameter's name.
        key: &'static str,
        /// The values that it takes.
        expected: &'static str,
    },
    /// The URL asks for less than verified TLS beyond loopback.
    #[error(
        "sslmode={mode} would let anybody on the way to {host}{} read and change the traffic: use \
         sslmode=verify-full (require means the same here){}",
        address.map_or(String::new(), |address| format!(" ({address})")),
        hint(match address.or(host.parse().ok()) {
            Some(address) => !is_private(address),
            None => is_neon(host),
        }),
    )]
    Insecure {
        /// The `sslmode`.
        mode: String,
        /// The first host that is not on this machine.
        host: String,
        /// The address that would be dialled, if the URL has one.
        address: Option<IpAddr>,
    },
    /// A host's name resolves to an address that must not be reached in plain text; see
    /// [`check_address`](crate::DatabaseUrl::check_address).
    #[error(
        "{address} is {}, and the database URL asks for plain text: use sslmode=verify-full{}",
        match private_allowed {
            true => "neither a loopback nor a private address",
            false => "not a loopback address",
        },
        hint(*private_allowed || !is_private(*address)),
    )]
    PlaintextAddress {
        /// The address.
        address: IpAddr,
        /// Whether the URL allows plain text to private addresses.
        private_allowed: bool,
    },
    /// Channel binding or direct TLS was asked for together with plain text.
    #[error("`{key}` needs TLS: add sslmode=verify-full to the database URL")]
    NeedsTls {
        /// The parameter that needs TLS.
        key: &'static str,
    },
    /// SCRAM cannot be bound to the TLS session of a WebSocket, since the server asks for the password itself.
    #[error(
        "channel_binding=require cannot hold over a WebSocket, where the server asks for the password itself within the \
         verified TLS: write channel_binding=prefer beside transport={transport}"
    )]
    ChannelBinding {
        /// The value of `transport`.
        transport: &'static str,
    },
    /// A parameter needs a feature of this crate that is not enabled.
    #[error(
        "{parameter}={value} needs the feature `{feature}` of diesel-neon: add it in Cargo.toml"
    )]
    MissingFeature {
        /// The parameter's name.
        parameter: &'static str,
        /// Its value.
        value: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The host is not a Neon endpoint, so the name of its pooler is not known.
    #[error(
        "{host} is not a Neon endpoint (ep-….<region>.…neon.tech), so its pooled host is not known: give \
         the pooled URL itself"
    )]
    NotAnEndpoint {
        /// The host.
        host: String,
    },
}

/// Returns how to allow plain text, unless that is `barred`.
fn hint(barred: bool) -> &'static str {
    match barred {
        true => "",
        false => {
            "; for a server on a private network where nobody else listens, add \
             allow_plaintext_to_private_network=true"
        }
    }
}

crate::util::debug_is_chain!(UrlError);

impl From<std::convert::Infallible> for UrlError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
