//! What can be wrong with a URL.

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
