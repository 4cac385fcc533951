//! What can be wrong with a URL.

use std::net::IpAddr;

use super::host::is_neon;
use super::tls::is_private;

/// A URL that cannot be used.
///
/// The message says what is wrong and how to mend it. It never quotes the URL, and of its parameters
/// only names that cannot be a part of the password.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
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
    /// An `@`, `?` or `#` stands where it makes two readings of the user name and the password.
    #[error(
        "the database URL cannot be taken apart: percent-encode `/`, `?`, `#`, `@` and `%` in the user \
         name and the password (`@` becomes %40), and `@` wherever else it stands"
    )]
    Malformed,
    /// The URL was copied from HTML's source.
    #[error("the database URL has `&amp;` where `&` belongs: replace it")]
    Html,
    /// There is a `#`, with which other programs end a URL and libpq does not.
    #[error(
        "the database URL has a `#`, and no fragment belongs there: remove it with what follows, or write \
         %23 where it is part of a name or a value"
    )]
    Fragment,
    /// A space, tab or other control character stands in the URL as it is.
    #[error(
        "the {part} in the database URL has a space, a tab, a line break or the like: remove it, or \
         percent-encode it (a space becomes %20)"
    )]
    Whitespace {
        /// Which part.
        part: &'static str,
    },
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "the {part} in the database URL has a `%` without two hexadecimal digits behind it: a percent \
         sign itself becomes %25"
    )]
    Percent {
        /// Which part.
        part: &'static str,
    },
    /// There is a `%00`.
    #[error("the {part} in the database URL has a %00, which Postgres cannot take: remove it")]
    ZeroByte {
        /// Which part.
        part: &'static str,
    },
    /// A part is not UTF-8 once its percent-encoding is undone.
    #[error("the {part} in the database URL is not UTF-8")]
    NotUtf8 {
        /// Which part.
        part: &'static str,
    },
    /// There is no host.
    #[error("the database URL names no host")]
    NoHost,
    /// A host's name has a character that no host's name has.
    #[error(
        "a host in the database URL is neither a name (ASCII letters, digits, `-`, `.`, `_`) nor an \
         address; in the parameter `host` a port has no place, it goes into `port`"
    )]
    Host,
    /// A host's name is not in ASCII.
    #[error(
        "a host in the database URL is not in ASCII: write an international name as it is looked up, with \
         xn-- in front"
    )]
    HostNotAscii,
    /// An IPv6 address in front of the path has no brackets, or there is no such address in them.
    #[error(
        "an IPv6 address in the database URL stands in brackets, [::1] or [::1]:5432, and nothing else does"
    )]
    Ipv6,
    /// An IPv6 address has a zone, as in `fe80::1%eth0`.
    #[error(
        "an IPv6 address with a zone (`%…`) in the database URL is not supported: leave the zone out"
    )]
    ZoneId,
    /// A port is not one.
    #[error("a port in the database URL is not a number from 1 to 65535")]
    Port,
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
    /// A host is the folder of a Unix socket, and has a `hostaddr`, by which libpq would dial instead.
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
    /// A parameter that neither libpq nor this crate knows.
    #[error("unknown parameter `{key}` in the database URL: remove it, or correct its spelling")]
    UnknownParameter {
        /// Its name.
        key: String,
    },
    /// The same of a parameter whose name is not shown, since it follows `password=`, or is no name.
    #[error(
        "unknown parameter in the database URL (not shown, as it may be a piece of the password): \
         percent-encode `&` in the password (%26), and remove the parameter if it is one"
    )]
    HiddenParameter,
    /// A parameter that this crate cannot honour, of libpq or of another driver.
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
        "sslmode={mode} would let anybody on the way to {host}{} read and change the traffic: use \
         sslmode=verify-full (or require, which means the same here){}",
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
        /// The address that would be dialled, where the URL has one.
        address: Option<IpAddr>,
    },
    /// A name has led to an address that must not be reached in plain text; see
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
    /// The host is not a Neon endpoint, so its pooler is not known.
    #[error(
        "{host} is not a Neon endpoint (ep-….<region>.…neon.tech), so its pooled host is not known"
    )]
    NotAnEndpoint {
        /// The host.
        host: String,
    },
}

/// The way to plain text, unless it is `barred`.
fn hint(barred: bool) -> &'static str {
    match barred {
        true => "",
        false => {
            "; for a server on a private network where nobody else listens, add \
             allow_plaintext_to_private_network=true"
        }
    }
}

crate::util::debug_is_display!(UrlError);
