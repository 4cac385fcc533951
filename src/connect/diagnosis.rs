//! [`Diagnosis`]: what a failed connect means, told by its words.

mod table;

use std::error::Error;
use std::io;

use self::table::TABLE;
use super::error::ConnectErrorKind;
use crate::transport::DialError;

/// What a connection that did not come about means, and what to do.
///
/// Neon's proxy sends every error of this phase as `XX000`, Postgres's own included, and PgBouncer
/// most of its as `08P01`: the words decide, then the SQLSTATE.
#[derive(Debug)]
pub struct Diagnosis {
    code: &'static str,
    kind: ConnectErrorKind,
    meaning: &'static str,
    hint: &'static str,
    /// Of which the message contains one, in any case, without what stands between double quotes.
    texts: &'static [&'static str],
    /// Which stand for this where the words are not known: translated ones, for example.
    sqlstates: &'static [&'static str],
}

impl Diagnosis {
    /// Returns what `error` means: tokio-postgres's, or one of the way to the server.
    pub fn of(error: &(dyn Error + 'static)) -> &'static Self {
        match error.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => match error.as_db_error() {
                Some(told) => Self::of_words(told.message(), Some(told.code().code())),
                None => Self::of_step(error),
            },
            None if error.is::<io::Error>() => &UNREACHABLE,
            None => &REFUSED,
        }
    }

    /// A short name that does not change: `credentials`, `endpoint-disabled`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The class of the failure.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// What has happened, for people.
    pub fn meaning(&self) -> &'static str {
        self.meaning
    }

    /// What to do.
    pub fn hint(&self) -> &'static str {
        self.hint
    }

    /// Returns what an error of the server means.
    pub(crate) fn of_words(message: &str, sqlstate: Option<&str>) -> &'static Self {
        let by_sqlstate = || {
            let is_theirs =
                |known: &&Self| sqlstate.is_some_and(|code| known.sqlstates.contains(&code));
            TABLE.iter().find(is_theirs)
        };
        let known = Self::by_text(message).or_else(by_sqlstate);
        known.unwrap_or(&REFUSED)
    }

    pub(super) fn of_dialling(error: &DialError) -> &'static Self {
        match error {
            DialError::Resolve { .. } => Self::by_text("could not resolve").unwrap_or(&UNREACHABLE),
            DialError::Connect { .. } | DialError::NotPostgres(_) => &UNREACHABLE,
            DialError::Forbidden { .. } => &PLAIN_TEXT,
            DialError::Closed { .. } | DialError::Refused(_) => &BROKEN,
            DialError::NoTls(_) | DialError::Tls { .. } => &TLS,
        }
    }

    fn by_text(message: &str) -> Option<&'static Self> {
        let message = without_names(message);
        TABLE.iter().find(|known| {
            let mut texts = known.texts.iter();
            texts.any(|text| message.contains(&text.to_ascii_lowercase()))
        })
    }

    /// What failed on this side; tokio-postgres tells its steps apart by their texts only.
    fn of_step(error: &tokio_postgres::Error) -> &'static Self {
        let step = error.to_string();
        let text = chain(error);
        if let Some(known) = Self::by_text(&text) {
            known
        } else if step.starts_with("error performing TLS handshake") {
            match find_io(error).map(io::Error::kind) {
                // The peer went away in the middle of the handshake.
                Some(
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe,
                ) => &BROKEN,
                _ => &TLS,
            }
        } else if step.starts_with("error connecting to server") {
            &UNREACHABLE
        } else {
            &BROKEN
        }
    }

    pub(super) fn broken() -> &'static Self {
        &BROKEN
    }

    pub(super) fn other_target() -> &'static Self {
        &OTHER_TARGET
    }

    /// Whether it is about one of a host's addresses, and says nothing of the others.
    pub(super) fn is_of_one_address(&self) -> bool {
        std::ptr::eq(self, &PLAIN_TEXT)
    }

    pub(super) fn timed_out() -> &'static Self {
        &TIMED_OUT
    }
}

static BROKEN: Diagnosis = Diagnosis {
    code: "unavailable",
    kind: ConnectErrorKind::Unavailable,
    meaning: "the connection broke before the session was there: the server is starting or stopping, or \
              something in between cuts connections",
    hint: "try again; if it stays, look for a firewall or a proxy in between",
    texts: &[],
    sqlstates: &[],
};

static TLS: Diagnosis = Diagnosis {
    code: "tls",
    kind: ConnectErrorKind::Tls,
    meaning: "TLS failed, or the host's certificate is not trusted",
    hint: "check the host name, this machine's clock and its root certificates (SSL_CERT_FILE, or \
           sslrootcert in the database URL)",
    texts: &[],
    sqlstates: &[],
};

static UNREACHABLE: Diagnosis = Diagnosis {
    code: "unreachable",
    kind: ConnectErrorKind::Unreachable,
    meaning: "nothing listens there, or the network does not lead there",
    hint: "check the host and the port in the database URL, and the firewall",
    texts: &[],
    sqlstates: &[],
};

static PLAIN_TEXT: Diagnosis = Diagnosis {
    code: "plain-text",
    kind: ConnectErrorKind::Configuration,
    meaning: "the URL means plain text, and the host's address is not on this machine",
    hint: "use sslmode=verify-full in the database URL",
    texts: &[],
    sqlstates: &[],
};

static OTHER_TARGET: Diagnosis = Diagnosis {
    code: "target-session-attrs",
    kind: ConnectErrorKind::TargetSessionAttrs,
    meaning: "none of the URL's hosts is a server of the kind that target_session_attrs asks for",
    hint: "add the other server to the database URL, or change target_session_attrs",
    texts: &[],
    sqlstates: &[],
};

static TIMED_OUT: Diagnosis = Diagnosis {
    code: "connect-timeout",
    kind: ConnectErrorKind::TimedOut,
    meaning: "there was no session before the time was up, most often in a cold start",
    hint: "raise connect_timeout if cold starts take longer",
    texts: &[],
    sqlstates: &[],
};

/// Not known here: it may be Neon's fault as well as the user's own.
static REFUSED: Diagnosis = Diagnosis {
    code: "refused",
    kind: ConnectErrorKind::Other,
    meaning: "the server refused, for a reason that is not known here",
    hint: "go by its words",
    texts: &[],
    sqlstates: &[],
};

/// A message in lower case, with nothing between its first and its last double quote: what stands there
/// is the user's own, and may be any text.
fn without_names(message: &str) -> String {
    let text = match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) => [&message[..=first], &message[last..]].concat(),
        _ => message.to_owned(),
    };
    text.to_ascii_lowercase()
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
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
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
    use ConnectErrorKind::*;

    #[test]
    fn neons_texts_are_told_apart() {
        for (message, kind, code) in [
            (
                "Couldn't connect to compute node",
                Unavailable,
                "compute-unreachable",
            ),
            (
                "the database system is starting up",
                Unavailable,
                "starting-up",
            ),
            ("Control plane request failed", Unavailable, "control-plane"),
            (
                "Control plane request failed: a text of tomorrow",
                Other,
                "control-plane-words",
            ),
            (
                "Control plane request failed: endpoint is temporarily unavailable. Check your quotas \
                 and/or contact our support.",
                Other,
                "quota",
            ),
            (
                "Too many connections to this endpoint. Please try again later.",
                TooManyConnections,
                "too-many-attempts",
            ),
            (
                "Too many connections attempts",
                TooManyConnections,
                "too-many-attempts",
            ),
            (
                "Failed to acquire permit to connect to the database. Too many database connection \
                 attempts are currently ongoing.",
                TooManyConnections,
                "too-many-attempts",
            ),
            (
                "remaining connection slots are reserved for roles with the SUPERUSER attribute",
                TooManyConnections,
                "too-many-connections",
            ),
            (
                "too many connections for role \"app\"",
                TooManyConnections,
                "too-many-connections",
            ),
            (
                "no more connections allowed (max_client_conn)",
                TooManyConnections,
                "too-many-connections",
            ),
            (
                "error communicating with the server: early eof",
                Unavailable,
                "unavailable",
            ),
            ("connection closed", Unavailable, "unavailable"),
            (
                "server login has been failing, cached error: connect failed (server_login_retry)",
                Unavailable,
                "server-behind-pooler",
            ),
            (
                "server login has been failing, cached error: database \"shelf\" does not exist \
                 (server_login_retry)",
                Database,
                "database-unknown",
            ),
            (
                "database \"quota\" does not exist",
                Database,
                "database-unknown",
            ),
            (
                "database \"the \"rate limit\" of old\" does not exist",
                Database,
                "database-unknown",
            ),
            (
                "password authentication failed for user 'endpoint is disabled'",
                Authentication,
                "credentials",
            ),
            ("a text of tomorrow", Other, "refused"),
        ] {
            let diagnosis = Diagnosis::of_words(message, Some("XX000"));
            assert_eq!((diagnosis.kind, diagnosis.code), (kind, code), "{message}");
        }
    }

    #[test]
    fn a_translated_message_is_told_by_its_code() {
        let of = |code| Diagnosis::of_words("irgendein Text", Some(code)).kind;
        assert_eq!(of("28P01"), Authentication);
        assert_eq!(of("28000"), Authentication);
        assert_eq!(of("3D000"), Database);
        assert_eq!(of("42704"), Configuration);
        assert_eq!(of("42501"), Forbidden);
        assert_eq!(of("53300"), TooManyConnections);
        assert_eq!(of("57P03"), Unavailable);
        assert_eq!(of("XX000"), Other);
    }

    #[test]
    fn each_text_leads_to_its_own_line() {
        for known in TABLE {
            for text in known.texts {
                let found = Diagnosis::of_words(text, None);
                assert!(std::ptr::eq(found, known), "{text}: {found:?}");
            }
        }
    }

    #[test]
    fn nobody_is_sent_to_a_status_page_for_what_may_be_a_mistake_of_his_own() {
        let local = [
            &BROKEN,
            &TLS,
            &UNREACHABLE,
            &PLAIN_TEXT,
            &OTHER_TARGET,
            &TIMED_OUT,
            &REFUSED,
        ];
        for known in TABLE.iter().chain(local) {
            let says = [known.meaning, known.hint].concat();
            let is_neons = known.code == "control-plane";
            assert_eq!(says.contains("neonstatus"), is_neons, "{known:?}");
        }
    }
}
