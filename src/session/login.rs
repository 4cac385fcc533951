//! [`LoginMonitor`]: how a login goes, and whether it has woken a compute, told by how long its last answer took.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::tag;

/// What a login has shown so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoginTrace {
    pub(crate) method: Option<LoginMethod>,
    pub(crate) is_authenticated: bool,
    /// From the client's last word to the first ReadyForQuery.
    pub(crate) start: Option<Duration>,
    pub(crate) was_cold: bool,
}

/// How a client proves to a server who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginMethod {
    /// The password itself.
    Cleartext,
    /// A hash of the password.
    Md5,
    /// SCRAM.
    ScramSha256,
    /// SCRAM that is bound to the TLS session, so that nobody in between can pass it on.
    ScramSha256Plus,
}

impl fmt::Display for LoginMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cleartext => "cleartext password",
            Self::Md5 => "MD5",
            Self::ScramSha256 => SCRAM,
            Self::ScramSha256Plus => SCRAM_PLUS,
        })
    }
}

/// The times of a login: a proxy that wakes a compute does so between the client's last word and the
/// first ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct LoginMonitor {
    asked: Option<Instant>,
    round_trip: Option<Duration>,
    /// Whether the server has named its mechanisms, and the client has not chosen one.
    is_open: bool,
    trace: LoginTrace,
}

impl LoginMonitor {
    pub(super) fn sent(&mut self, tag: u8) {
        if self.trace.start.is_none()
            && matches!(tag, tag::frontend::STARTUP | tag::frontend::PASSWORD)
        {
            self.asked = Some(Instant::now());
        }
    }

    /// Reads the mechanism that the client has chosen from what it writes. A password in clear text is not
    /// looked at.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let name = bytes.get(5..).unwrap_or_default().split(|byte| *byte == 0);
        self.trace.method = match name.take(1).next() {
            Some(name) if name == SCRAM.as_bytes() => Some(LoginMethod::ScramSha256),
            Some(name) if name == SCRAM_PLUS.as_bytes() => Some(LoginMethod::ScramSha256Plus),
            _ => None,
        };
    }

    /// Takes in a message of the server's. Returns what the login has shown if there is something new.
    pub(super) fn received(&mut self, tag: u8, body: &[u8]) -> Option<LoginTrace> {
        let waited = self.asked?.elapsed();
        match tag {
            tag::AUTHENTICATION => {
                let shortest = self.round_trip.unwrap_or(waited).min(waited);
                self.round_trip = Some(shortest);
                match body.first_chunk().copied().map(i32::from_be_bytes) {
                    Some(OK) => self.trace.is_authenticated = true,
                    Some(CLEARTEXT) => self.trace.method = Some(LoginMethod::Cleartext),
                    Some(MD5) => self.trace.method = Some(LoginMethod::Md5),
                    Some(SASL) => self.is_open = true,
                    _ => {}
                }
            }
            tag::READY_FOR_QUERY => {
                self.asked = None;
                self.trace.start = Some(waited);
                self.trace.was_cold =
                    waited >= COLD.saturating_add(self.round_trip.unwrap_or_default());
            }
            _ => return None,
        }
        Some(self.trace)
    }
}

/// Returns whether the server wants no more than the answer to this AuthenticationRequest, if that much: a
/// password, the proof of SCRAM, or nothing.
pub(super) fn is_last_question(body: &[u8]) -> bool {
    let kind = body.first_chunk().copied().map(i32::from_be_bytes);
    matches!(kind, Some(OK | CLEARTEXT | MD5 | SASL_CONTINUE))
}

/// A login that is this much slower than a round trip has met a sleeping compute: Neon speaks of a few
/// hundred milliseconds, a warm login takes a few.
const COLD: Duration = Duration::from_millis(100);

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

// The kinds of AuthenticationRequest.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
