//! [`LoginMonitor`]: how a login proceeds, and whether it has woken a compute, as its duration shows.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::tag;

/// What a login has shown so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoginTrace {
    pub(crate) method: Option<LoginMethod>,
    pub(crate) is_authenticated: bool,
    /// The time from the client's last message to the first ReadyForQuery.
    pub(crate) start: Option<Duration>,
    pub(crate) was_cold: bool,
}

/// How a client authenticates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoginMethod {
    /// The password itself.
    Cleartext,
    /// A hash of the password.
    Md5,
    /// SCRAM.
    ScramSha256,
    /// SCRAM that is bound to the TLS session, so that no server in between can relay it.
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

/// Times a login: a proxy wakes a compute between the client's last message and the first ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct LoginMonitor {
    /// When the client sent its last message.
    sent_at: Option<Instant>,
    /// The shortest time that the server took for a step of the authentication.
    round_trip: Option<Duration>,
    /// Whether the server has offered its mechanisms, and the client has not chosen one.
    is_choosing: bool,
    trace: LoginTrace,
}

impl LoginMonitor {
    /// Takes note of a message that the client has sent.
    pub(super) fn sent(&mut self, tag: u8) {
        if self.trace.start.is_none()
            && matches!(tag, tag::frontend::STARTUP | tag::frontend::PASSWORD)
        {
            self.sent_at = Some(Instant::now());
        }
    }

    /// Takes note of bytes that the client has written: reads the mechanism that it has chosen. A password is not read.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        if !std::mem::take(&mut self.is_choosing) {
            return;
        }
        let name = bytes.get(5..).unwrap_or_default().split(|byte| *byte == 0);
        self.trace.method = match name.take(1).next() {
            Some(name) if name == SCRAM.as_bytes() => Some(LoginMethod::ScramSha256),
            Some(name) if name == SCRAM_PLUS.as_bytes() => Some(LoginMethod::ScramSha256Plus),
            _ => None,
        };
    }

    /// Takes note of a message of the server; returns the trace if it has changed.
    pub(super) fn received(&mut self, tag: u8, body: &[u8]) -> Option<LoginTrace> {
        let waited = self.sent_at?.elapsed();
        match tag {
            tag::AUTHENTICATION => {
                let shortest = self.round_trip.unwrap_or(waited).min(waited);
                self.round_trip = Some(shortest);
                match body.first_chunk().copied().map(i32::from_be_bytes) {
                    Some(OK) => self.trace.is_authenticated = true,
                    Some(CLEARTEXT) => self.trace.method = Some(LoginMethod::Cleartext),
                    Some(MD5) => self.trace.method = Some(LoginMethod::Md5),
                    Some(SASL) => self.is_choosing = true,
                    _ => {}
                }
            }
            tag::READY_FOR_QUERY => {
                self.sent_at = None;
                self.trace.start = Some(waited);
                self.trace.was_cold =
                    waited >= COLD.saturating_add(self.round_trip.unwrap_or_default());
            }
            _ => return None,
        }
        Some(self.trace)
    }
}

/// Returns whether this AuthenticationRequest is the last one that the client has to answer (with a password or the
/// proof of SCRAM), or needs no answer.
pub(super) fn is_last_step(body: &[u8]) -> bool {
    let kind = body.first_chunk().copied().map(i32::from_be_bytes);
    matches!(kind, Some(OK | CLEARTEXT | MD5 | SASL_CONTINUE))
}

/// How much longer than a round trip the end of a login takes if the compute was suspended: a cold start takes a few
/// hundred milliseconds, a warm login a few.
const COLD: Duration = Duration::from_millis(100);

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

// The kinds of AuthenticationRequest.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
