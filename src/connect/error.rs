//! Why a connection did not come about, and whether another try is worth it.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// No connection came about.
///
/// `Display` gives the reason in the server's own words where it gave one, and what to do; never the
/// password.
#[derive(Clone)]
pub struct ConnectError {
    kind: ConnectErrorKind,
    failure: Option<Failure>,
    budget: Duration,
    attempts: u32,
    elapsed: Duration,
}

impl ConnectError {
    pub(super) fn new(failure: Failure, attempts: u32, elapsed: Duration) -> Self {
        Self {
            kind: failure.kind,
            failure: Some(failure),
            budget: Duration::ZERO,
            attempts,
            elapsed,
        }
    }

    pub(super) fn timed_out(
        last: Option<Failure>,
        budget: Duration,
        attempts: u32,
        elapsed: Duration,
    ) -> Self {
        Self {
            kind: ConnectErrorKind::TimedOut,
            failure: last,
            budget,
            attempts,
            elapsed,
        }
    }

    /// The class of the failure.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// The server's SQLSTATE, where it sent one. Neon's proxy sends `XX000` for everything, so go by
    /// [`kind`](Self::kind).
    pub fn sqlstate(&self) -> Option<&str> {
        self.failure.as_ref()?.code.as_ref().map(SqlState::code)
    }

    /// Whether the same attempt may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.kind.persistence() != Persistence::Final
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long the attempts took together.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Whether a caller with time left should stay for the next connect.
    pub(crate) fn is_worth_waiting_for(&self) -> bool {
        self.kind.persistence() == Persistence::Patient
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.failure) {
            (ConnectErrorKind::TimedOut, last) => {
                write!(f, "no connection within {:?}", self.budget)?;
                if let Some(last) = last {
                    write!(f, ", last failure: {last}")?;
                }
            }
            (_, Some(failure)) => write!(f, "{failure}")?,
            (_, None) => {}
        }
        if self.attempts > 1 {
            write!(f, " ({} attempts)", self.attempts)?;
        }
        match self.kind.mend() {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

/// For people too: it is what a `main` that returns the error prints.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(\"{self}\")", self.kind)
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let failure = self.failure.as_ref()?;
        Some(&*failure.source as &(dyn Error + 'static))
    }
}

/// The class of a [`ConnectError`].
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
    /// This address or network is not allowed to connect.
    Forbidden,
    /// The host's certificate is not trusted, or TLS failed otherwise.
    Tls,
    /// The host's name does not resolve.
    Resolve,
    /// Nothing listens there, or the network does not lead there.
    Unreachable,
    /// No more connections are allowed at the moment.
    TooManyConnections,
    /// The compute or the server is starting, stopping, or out of reach for now.
    Unavailable,
    /// The budget ran out, most often in a cold start.
    TimedOut,
    /// The server refused for a reason that is not classified here.
    Other,
}

impl ConnectErrorKind {
    /// The class of what tokio-postgres says of a connection that did not come about.
    pub fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => classify(db.code(), db.message()),
            None => classify_local(error),
        }
    }

    fn persistence(self) -> Persistence {
        match self {
            Self::Authentication
            | Self::Database
            | Self::Configuration
            | Self::Endpoint
            | Self::Forbidden
            | Self::Tls => Persistence::Final,
            Self::Resolve | Self::Unreachable | Self::Other => Persistence::Brief,
            Self::TooManyConnections | Self::Unavailable | Self::TimedOut => Persistence::Patient,
        }
    }

    fn mend(self) -> Option<&'static str> {
        Some(match self {
            Self::Authentication => "check the user name and the password in the database URL",
            Self::Database => {
                "create it, or correct the name at the end of the database URL's path"
            }
            Self::Configuration => {
                "remove what it names from the database URL, or use the direct one"
            }
            Self::Endpoint => "check the host in the database URL against Neon's console",
            Self::Forbidden => "add this address to the project's IP allow list",
            Self::Tls => {
                "check the host name, this machine's clock and its root certificates \
                 (SSL_CERT_FILE, or sslrootcert in the database URL)"
            }
            Self::Resolve => "check the host in the database URL, and this machine's name service",
            Self::Unreachable => {
                "check the host and the port in the database URL, and the firewall"
            }
            Self::TooManyConnections => {
                "lower max_size or the number of instances, or use the pooled URL"
            }
            Self::TimedOut => "raise connect_timeout if cold starts take longer",
            Self::Unavailable | Self::Other => return None,
        })
    }
}

/// For how long a failure is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// It stays as it is until somebody changes something.
    Final,
    /// It may be a hiccup, and may be for good.
    Brief,
    /// It passes: as long as the budget lasts.
    Patient,
}

/// Why one attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: ConnectErrorKind,
    code: Option<SqlState>,
    message: String,
    source: Arc<dyn Error + Send + Sync>,
}

impl Failure {
    pub(super) fn persistence(&self) -> Persistence {
        self.kind.persistence()
    }

    pub(super) fn postgres(error: tokio_postgres::Error) -> Self {
        let kind = ConnectErrorKind::of(&error);
        let (code, message) = match error.as_db_error() {
            Some(db) => (Some(db.code().clone()), db.message().to_owned()),
            None => (None, chain(&error)),
        };
        Self {
            kind,
            code,
            message,
            source: Arc::new(error),
        }
    }

    pub(super) fn io(error: io::Error) -> Self {
        Self {
            kind: ConnectErrorKind::Unreachable,
            code: None,
            message: error.to_string(),
            source: Arc::new(error),
        }
    }

    /// The session was there, but could not be made ready.
    pub(super) fn setup(error: diesel::ConnectionError) -> Self {
        Self {
            kind: ConnectErrorKind::Unavailable,
            code: None,
            message: format!("setting the session up failed: {error}"),
            source: Arc::new(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.code {
            // Neon's proxy has no other: it says nothing.
            Some(code) if *code != SqlState::INTERNAL_ERROR => {
                write!(f, " (SQLSTATE {})", code.code())
            }
            _ => Ok(()),
        }
    }
}

/// What the server said. Neon's proxy sends every error of this phase as `XX000`, Postgres's own
/// included, and PgBouncer most of its as `08P01`: the text decides, then the code.
fn classify(code: &SqlState, message: &str) -> ConnectErrorKind {
    let by_text = TEXTS
        .iter()
        .find(|(text, _)| message.contains(text))
        .map(|(_, kind)| *kind);
    by_text.unwrap_or(match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            ConnectErrorKind::Authentication
        }
        SqlState::INVALID_CATALOG_NAME => ConnectErrorKind::Database,
        SqlState::INSUFFICIENT_PRIVILEGE => ConnectErrorKind::Forbidden,
        SqlState::FEATURE_NOT_SUPPORTED
        | SqlState::INVALID_PARAMETER_VALUE
        | SqlState::UNDEFINED_OBJECT => ConnectErrorKind::Configuration,
        SqlState::TOO_MANY_CONNECTIONS => ConnectErrorKind::TooManyConnections,
        SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => {
            ConnectErrorKind::Unavailable
        }
        _ => ConnectErrorKind::Other,
    })
}

/// The first that the message contains decides; the narrower ones stand in front.
const TEXTS: &[(&str, ConnectErrorKind)] = &[
    // Neon's proxy
    (
        "password authentication failed",
        ConnectErrorKind::Authentication,
    ),
    ("endpoint cannot be found", ConnectErrorKind::Endpoint),
    ("endpoint is disabled", ConnectErrorKind::Endpoint),
    ("Endpoint ID is not specified", ConnectErrorKind::Endpoint),
    ("Inconsistent project name", ConnectErrorKind::Endpoint),
    (
        "is not allowed to connect to this endpoint",
        ConnectErrorKind::Forbidden,
    ),
    ("from a blocked network", ConnectErrorKind::Forbidden),
    ("connection is insecure", ConnectErrorKind::Configuration),
    (
        "unsupported startup parameter",
        ConnectErrorKind::Configuration,
    ),
    // May be maintenance, may be a quota: a few tries, then its own words.
    (
        "endpoint is temporarily unavailable",
        ConnectErrorKind::Other,
    ),
    (
        "Control plane request failed",
        ConnectErrorKind::Unavailable,
    ),
    (
        "Couldn't connect to compute node",
        ConnectErrorKind::Unavailable,
    ),
    (
        "error communicating with the server",
        ConnectErrorKind::Unavailable,
    ),
    ("connection closed", ConnectErrorKind::Unavailable),
    ("Too many connections", ConnectErrorKind::TooManyConnections),
    (
        "Failed to acquire permit",
        ConnectErrorKind::TooManyConnections,
    ),
    // Postgres, with its code replaced
    ("the database system is", ConnectErrorKind::Unavailable),
    (
        "remaining connection slots",
        ConnectErrorKind::TooManyConnections,
    ),
    ("too many clients", ConnectErrorKind::TooManyConnections),
    (
        "too many connections for",
        ConnectErrorKind::TooManyConnections,
    ),
    ("\" does not exist", ConnectErrorKind::Database),
    (
        "permission denied for database",
        ConnectErrorKind::Forbidden,
    ),
    // PgBouncer
    ("no such database", ConnectErrorKind::Database),
    (
        "no more connections allowed",
        ConnectErrorKind::TooManyConnections,
    ),
    ("query_wait_timeout", ConnectErrorKind::Unavailable),
    (
        "server login has been failing",
        ConnectErrorKind::Unavailable,
    ),
    ("shutting down", ConnectErrorKind::Unavailable),
];

/// What failed on this side; tokio-postgres tells the steps apart by their texts only.
fn classify_local(error: &tokio_postgres::Error) -> ConnectErrorKind {
    let step = error.to_string();
    let text = chain(error);
    if text.contains("failed to lookup address information") || text.contains("could not resolve") {
        ConnectErrorKind::Resolve
    } else if step.starts_with("error performing TLS handshake") {
        match find_io(error).map(io::Error::kind) {
            // The peer went away in the middle of the handshake.
            Some(
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe,
            ) => ConnectErrorKind::Unavailable,
            _ => ConnectErrorKind::Tls,
        }
    } else if step.starts_with("error connecting to server") {
        ConnectErrorKind::Unreachable
    } else if step.starts_with("authentication error") {
        ConnectErrorKind::Authentication
    } else if step.starts_with("invalid configuration") {
        ConnectErrorKind::Configuration
    } else {
        ConnectErrorKind::Unavailable
    }
}

fn find_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// The causes in one line; tokio-postgres's own texts name only the step.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neons_texts_are_told_apart() {
        use ConnectErrorKind::*;
        for (message, kind) in [
            ("Couldn't connect to compute node", Unavailable),
            ("the database system is starting up", Unavailable),
            ("Control plane request failed", Unavailable),
            (
                "Control plane request failed: endpoint is temporarily unavailable. Check your quotas \
                 and/or contact our support.",
                Other,
            ),
            (
                "Too many connections to this endpoint. Please try again later.",
                TooManyConnections,
            ),
            ("Too many connections attempts", TooManyConnections),
            (
                "Failed to acquire permit to connect to the database. Too many database connection \
                 attempts are currently ongoing.",
                TooManyConnections,
            ),
            (
                "remaining connection slots are reserved for roles with the SUPERUSER attribute",
                TooManyConnections,
            ),
            ("too many connections for role \"app\"", TooManyConnections),
            (
                "no more connections allowed (max_client_conn)",
                TooManyConnections,
            ),
            (
                "error communicating with the server: early eof",
                Unavailable,
            ),
            ("connection closed", Unavailable),
            (
                "Control plane request failed: endpoint cannot be found",
                Endpoint,
            ),
            (
                "Control plane request failed: endpoint is disabled",
                Endpoint,
            ),
            (
                "password authentication failed for user 'app'",
                Authentication,
            ),
            (
                "This IP address 192.0.2.1 is not allowed to connect to this endpoint.",
                Forbidden,
            ),
            (
                "This connection is trying to access this endpoint from a blocked network.",
                Forbidden,
            ),
            ("database \"shelf\" does not exist", Database),
            ("a text of tomorrow", Other),
        ] {
            assert_eq!(
                classify(&SqlState::INTERNAL_ERROR, message),
                kind,
                "{message}"
            );
        }
    }
}
