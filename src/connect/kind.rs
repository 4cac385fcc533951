//! [`ConnectErrorKind`]: the classes of failures, and how long each is retried.

/// The class of a [`ConnectError`](crate::ConnectError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The user name or the password is wrong. Neon says the same of an endpoint that does not exist.
    Authentication,
    /// The database does not exist.
    Database,
    /// The server refuses a parameter of the URL, or plain text must not go to its address.
    Configuration,
    /// The Neon endpoint does not exist, is disabled, or cannot be told from the URL.
    Endpoint,
    /// This address or network is not allowed to connect, or the role lacks a right.
    Forbidden,
    /// The project's quota is used up.
    Quota,
    /// The host's certificate is not trusted, the server has no TLS, or the handshake failed.
    Tls,
    /// The host's name does not resolve.
    Resolve,
    /// No server listens at the address, or the network has no route to it.
    Unreachable,
    /// No more connections are allowed at the moment.
    TooManyConnections,
    /// The server is not of the kind, read-write or read-only, that `target_session_attrs` asks for.
    TargetSessionAttrs,
    /// The compute or the server is starting, stopping, or out of reach for now.
    Unavailable,
    /// The budget ran out, most often in a cold start.
    TimedOut,
    /// The server refused for a reason that is not classified here.
    Other,
}

impl ConnectErrorKind {
    pub(super) fn retry_class(self) -> RetryClass {
        match self {
            Self::Authentication
            | Self::Configuration
            | Self::Database
            | Self::Endpoint
            | Self::Forbidden
            | Self::Quota
            | Self::Tls => RetryClass::Final,
            Self::TargetSessionAttrs | Self::Other => RetryClass::Brief,
            Self::Resolve | Self::Unreachable => RetryClass::Restart,
            Self::TooManyConnections | Self::Unavailable | Self::TimedOut => RetryClass::Patient,
        }
    }
}

/// How long a failure is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryClass {
    /// Not at all: the failure stays until somebody changes something.
    Final,
    /// For a moment: the failure may be final, and the caller waits for the message.
    Brief,
    /// For as long as a server takes to restart: the host or the port may be wrong. Once the pool has
    /// connected, they are not, and the class is `Patient`.
    Restart,
    /// For the whole budget: the failure passes.
    Patient,
}
