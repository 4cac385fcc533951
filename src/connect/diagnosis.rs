//! [`Diagnosis`]: the meaning of a failed connect, found by its words.

mod entry;
#[cfg(any(feature = "http", feature = "websocket"))]
mod proxy;
pub(super) mod steps;
mod table;
#[cfg(feature = "websocket")]
mod websocket;

pub use self::entry::Diagnosis;
use self::table::TABLE;
use crate::transport::DialError;
#[cfg(feature = "websocket")]
use crate::transport::WebSocketError;
use crate::util::error_chain::chain;

impl Diagnosis {
    /// Returns the diagnosis of a server's error.
    pub(crate) fn of_words(message: &str, sqlstate: Option<&str>) -> &'static Self {
        let by_sqlstate = || {
            let is_theirs =
                |known: &&Self| sqlstate.is_some_and(|code| known.sqlstates.contains(&code));
            TABLE.iter().find(is_theirs)
        };
        let known = Self::by_text(message).or_else(by_sqlstate);
        known.unwrap_or(&steps::REFUSED)
    }

    /// Returns the diagnosis of a login's error.
    pub(super) fn of_login(error: &tokio_postgres::Error) -> &'static Self {
        match error.as_db_error() {
            Some(told) => Self::of_words(told.message(), Some(told.code().code())),
            // tokio-postgres's own errors differ only in their texts.
            None => {
                let text = chain(error);
                let known = steps::of_driver(&text).or_else(|| Self::by_text(&text));
                known.unwrap_or(&steps::BROKEN)
            }
        }
    }

    /// Returns the diagnosis of a stream that could not be opened.
    pub(super) fn of_dialling(error: &DialError) -> &'static Self {
        steps::of_dialling(error)
    }

    /// Returns the diagnosis of a WebSocket that could not be opened, or was closed during the login.
    #[cfg(feature = "websocket")]
    pub(super) fn of_websocket(error: &WebSocketError) -> &'static Self {
        websocket::of_websocket(error)
    }

    fn by_text(message: &str) -> Option<&'static Self> {
        let message = without_names(message);
        TABLE.iter().find(|known| {
            let mut texts = known.texts.iter();
            texts.any(|text| message.contains(&text.to_ascii_lowercase()))
        })
    }
}

/// Returns a message in lower case without the text between its first and its last double quote, which is a
/// name of the user's choice and may be any text.
fn without_names(message: &str) -> String {
    let text = match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) => [&message[..=first], &message[last..]].concat(),
        _ => message.to_owned(),
    };
    text.to_ascii_lowercase()
}

/// Returns whether tokio-postgres says that the stream ended within a message.
pub(super) fn is_cut_off(text: &str) -> bool {
    text.ends_with("bytes remaining on stream")
}

#[cfg(test)]
mod tests {
    use super::super::kind::ConnectErrorKind::*;
    use super::*;

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
    fn the_page_on_troubles_has_the_kinds_that_errors_have() {
        let page = include_str!("../../docs/troubleshooting.md");
        let (ours, _) = page.split_once("## What other libraries say").unwrap();
        let mut known = 0;
        for row in ours.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.split(" | ").collect();
            for text in cells[0].split('`').skip(1).step_by(2) {
                // What the library says itself has no line in the table.
                if let Some(found) = Diagnosis::by_text(&text.replace('…', "x")) {
                    let kind = format!("`{:?}`", found.kind);
                    assert!(cells[1].contains(&kind), "{text} is {kind}: {row}");
                    known += 1;
                }
            }
        }
        assert!(known > 12, "{known}");
    }

    #[test]
    fn nobody_is_sent_to_a_status_page_for_what_may_be_a_mistake_of_his_own() {
        let own = [
            steps::STEPS,
            #[cfg(any(feature = "http", feature = "websocket"))]
            proxy::STEPS,
            #[cfg(feature = "websocket")]
            websocket::STEPS,
        ];
        for known in TABLE.iter().chain(own.concat()) {
            let says = [known.meaning, known.hint].concat();
            let is_neons = known.code == "control-plane";
            assert_eq!(says.contains("neonstatus"), is_neons, "{known:?}");
        }
    }
}
