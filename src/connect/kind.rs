//! [`ConnectErrorKind`]: the classes of failures, and for how long each is worth another try.

/// The class of a [`ConnectError`](crate::ConnectError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// Wrong user name or password. Neon says the same of an endpoint that does not exist.
    Authentication,
    /// The database does not exist.
    Database,
    /// The server is not what the URL makes it: parameters it refuses, or no TLS.
    Configuration,
    /// The Neon endpoint does not exist, is disabled, or cannot be told from the URL.
    Endpoint,
    /// This address or network is not allowed to connect, or the role lacks a right.
    Forbidden,
    /// The project's allowance is used up.
    Quota,
    /// The host's certificate is not trusted, or TLS failed otherwise.
    Tls,
    /// The host's name does not resolve.
    Resolve,
    /// Nothing listens there, or the network does not lead there.
    Unreachable,
    /// No more connections are allowed at the moment.
    TooManyConnections,
    /// The server takes writes, or takes none, where `target_session_attrs` asks for the other kind.
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
            Self::Resolve | Self::Unreachable => RetryClass::UntilMet,
            Self::TooManyConnections | Self::Unavailable | Self::TimedOut => RetryClass::Patient,
        }
    }
}

/// For how long a failure is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryClass {
    /// It stays as it is until somebody changes something.
    Final,
    /// It may be a hiccup, and may be for good: people wait for the message.
    Brief,
    /// Nobody answers: for as long as a restart takes where there never was a connection, since the host or
    /// the port may be wrong; else it passes.
    UntilMet,
    /// It passes: as long as the budget lasts.
    Patient,
}
