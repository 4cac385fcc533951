//! What the headers of a request ask for.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;
use url::Url;

use super::failure::Failure;

const CONNECTION_STRING: &str = "neon-connection-string";

/// How a client proves who it is.
#[derive(Debug)]
pub(super) enum Credentials {
    Password(Vec<u8>),
    Token(String),
}

/// Where a request goes, by its connection string.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) credentials: Credentials,
}

impl Target {
    /// Reads the headers of a request at a host that takes tokens, or passwords.
    pub(super) fn read(headers: &HeaderMap, takes_tokens: bool) -> Result<Self, Failure> {
        let text = headers.get(CONNECTION_STRING);
        let text = text.and_then(|text| text.to_str().ok()).ok_or_else(|| {
            let message = format!("invalid header: {CONNECTION_STRING}");
            Failure::bad(message)
        })?;
        let url = Url::parse(text)
            .map_err(|error| Failure::bad(format!("invalid connection string: {error}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(Failure::bad("incorrect scheme"));
        }
        let mut path = url.path_segments().into_iter().flatten();
        let database = match path.next() {
            Some("") | None => return Err(Failure::bad("missing database name")),
            Some(name) => decoded(name),
        };
        if url.username().is_empty() {
            return Err(Failure::bad("missing username"));
        }
        let credentials = match (headers.get(AUTHORIZATION), url.password()) {
            (Some(value), _) if takes_tokens => {
                let value = value.to_str().unwrap_or_default();
                let token = value.strip_prefix("Bearer ").ok_or_else(missing_token)?;
                Credentials::Token(token.to_owned())
            }
            (None, Some(password)) if !takes_tokens => {
                Credentials::Password(percent_decode_str(password).collect())
            }
            _ if takes_tokens => return Err(missing_token()),
            _ => {
                let message = "missing authentication credentials: required password";
                return Err(Failure::bad(message));
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        Ok(Self {
            host: host.ok_or_else(|| Failure::bad("missing hostname"))?.into(),
            user: decoded(url.username()),
            database,
            credentials,
        })
    }
}

fn missing_token() -> Failure {
    Failure::bad(
        "missing authentication credentials: required authorization bearer token in JWT format",
    )
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// How a request's results are to look, and its transaction.
#[derive(Debug)]
pub(super) struct Options {
    /// Whether values come as PostgreSQL writes them.
    pub(super) raw_text: bool,
    pub(super) array_mode: bool,
    /// As Neon's header has it, and in SQL.
    pub(super) isolation_level: Option<(&'static str, &'static str)>,
    pub(super) read_only: bool,
    pub(super) deferrable: bool,
}

const LEVELS: [(&str, &str); 4] = [
    ("Serializable", "SERIALIZABLE"),
    ("ReadUncommitted", "READ UNCOMMITTED"),
    ("ReadCommitted", "READ COMMITTED"),
    ("RepeatableRead", "REPEATABLE READ"),
];

/// The names of the headers that an answer repeats.
pub(super) const ISOLATION_LEVEL: &str = "neon-batch-isolation-level";
pub(super) const READ_ONLY: &str = "neon-batch-read-only";
pub(super) const DEFERRABLE: &str = "neon-batch-deferrable";

impl Options {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let is_set = |name| headers.get(name).is_some_and(|value| value == "true");
        let isolation_level = match headers.get(ISOLATION_LEVEL) {
            None => None,
            Some(value) => {
                let level = LEVELS.into_iter().find(|(name, _)| value == name);
                Some(level.ok_or_else(|| Failure::bad("invalid isolation level"))?)
            }
        };
        Ok(Self {
            raw_text: is_set("neon-raw-text-output"),
            array_mode: is_set("neon-array-mode"),
            isolation_level,
            read_only: is_set(READ_ONLY),
            deferrable: is_set(DEFERRABLE),
        })
    }

    /// Returns the statement that begins a batch.
    pub(super) fn begin(&self) -> String {
        let mut modes = Vec::new();
        if let Some((_, level)) = self.isolation_level {
            modes.push(format!("ISOLATION LEVEL {level}"));
        }
        if self.read_only {
            modes.push("READ ONLY".into());
        }
        if self.deferrable {
            modes.push("DEFERRABLE".into());
        }
        format!("START TRANSACTION {}", modes.join(", "))
    }
}
