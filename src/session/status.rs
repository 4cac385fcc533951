//! [`SessionStatus`]: what is known of a session without asking it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::login::LoginTrace;
use crate::protocol::tag::{self, frontend, status};
use crate::protocol::{ServerError, command_tag};
use crate::util::clock::{LastSeen, Moment};
use crate::util::ending::may_end_transaction;

/// Written by whatever reads and writes the session's bytes, read by the pool.
#[derive(Debug)]
pub(crate) struct SessionStatus {
    heard: LastSeen,
    /// Groups of messages sent that the server ends with ReadyForQuery.
    requests: AtomicU64,
    /// ReadyForQuery read.
    answers: AtomicU64,
    /// ReadyForQuery's status, or 0 before the first.
    transaction_status: AtomicU8,
    /// Ends of transactions.
    transaction_ends: AtomicU64,
    /// Statements sent that may end one.
    possible_ends: AtomicU64,
    /// The process that the server says it is, or 0.
    process: AtomicI32,
    ended: AtomicBool,
    login: Mutex<LoginTrace>,
    /// Transactions, one within the other, whose futures would tell if they were dropped.
    guarded: AtomicU32,
    abandoned: AtomicBool,
    fatal_error: Mutex<Option<ServerError>>,
    parameters: Mutex<Vec<(Box<str>, Box<str>)>>,
}

impl SessionStatus {
    pub(crate) fn new() -> Self {
        Self {
            heard: LastSeen::now(),
            requests: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            transaction_status: AtomicU8::new(0),
            transaction_ends: AtomicU64::new(0),
            possible_ends: AtomicU64::new(0),
            process: AtomicI32::new(0),
            ended: AtomicBool::new(false),
            login: Mutex::default(),
            guarded: AtomicU32::new(0),
            abandoned: AtomicBool::new(false),
            fatal_error: Mutex::new(None),
            parameters: Mutex::new(Vec::new()),
        }
    }

    /// For how long the server has not been heard from.
    pub(crate) fn quiet_at(&self, now: &Moment) -> Duration {
        self.heard.elapsed_at(now)
    }

    /// How many requests have been sent.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// How many answers have come.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }

    /// Whether the server owes an answer.
    pub(crate) fn is_busy(&self) -> bool {
        // The startup is the request that the first answer belongs to.
        self.answers.load(Ordering::Acquire) < self.requests.load(Ordering::Acquire)
    }

    /// Whether a transaction is open or has failed, as of the last answer.
    pub(crate) fn in_transaction(&self) -> bool {
        matches!(
            self.transaction_status.load(Ordering::Acquire),
            status::IN_TRANSACTION | status::IN_FAILED_TRANSACTION
        )
    }

    /// Whether a transaction has failed and waits for its rollback, as of the last answer.
    pub(crate) fn in_failed_transaction(&self) -> bool {
        self.transaction_status.load(Ordering::Acquire) == status::IN_FAILED_TRANSACTION
    }

    /// How often a transaction has ended: more often where one answer shows it in two ways, never less.
    pub(crate) fn transaction_ends(&self) -> u64 {
        self.transaction_ends.load(Ordering::Acquire)
    }

    /// Returns how many statements were sent that may end a transaction.
    pub(crate) fn possible_ends(&self) -> u64 {
        self.possible_ends.load(Ordering::Acquire)
    }

    /// Whether an answer is missing, or the session has ended so that one may be.
    pub(crate) fn misses_answer(&self) -> bool {
        self.is_busy() || self.has_ended()
    }

    /// Whether a transaction's future was dropped before its end.
    pub(crate) fn has_abandoned_transaction(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(super) fn abandon_transaction(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(super) fn forget_abandoned_transaction(&self) {
        self.abandoned.store(false, Ordering::Release);
    }

    pub(super) fn guard(&self) {
        self.guarded.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn unguard(&self) {
        self.guarded.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes note that a statement that was given up has had its answer. In a transaction that no future guards,
    /// the statement may have been dropped together with the transaction's work.
    pub(super) fn gave_up_statement(&self) {
        let open = self.in_transaction() && !self.in_failed_transaction();
        if open && self.guarded.load(Ordering::Acquire) == 0 {
            self.abandon_transaction();
        }
    }

    /// Whether the server's side has come to an end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the login has woken a compute.
    pub(crate) fn was_cold(&self) -> bool {
        self.login().was_cold
    }

    /// Returns what the login has shown so far.
    pub(crate) fn login(&self) -> LoginTrace {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trace_login(&self, trace: LoginTrace) {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = trace;
    }

    /// The fatal error that the server sent, if it did.
    pub(crate) fn fatal_error(&self) -> Option<ServerError> {
        let words = self.fatal_error.lock();
        words.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process that the server says it is: Postgres tells the truth, poolers make something up.
    pub(crate) fn process(&self) -> i32 {
        self.process.load(Ordering::Acquire)
    }

    /// What the server last reported of one of its settings.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let parameters = self.parameters.lock();
        let parameters = parameters.unwrap_or_else(PoisonError::into_inner);
        let mut found = parameters.iter().filter(|(known, _)| **known == *name);
        found.next().map(|(_, value)| value.to_string())
    }

    /// Takes note that `sql` is about to be sent; `several` says whether it may be more than one statement.
    pub(crate) fn sends(&self, sql: &str, several: bool) {
        if may_end_transaction(sql, several) {
            self.may_end_transaction();
        }
    }

    pub(super) fn may_end_transaction(&self) {
        self.possible_ends.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn sent(&self, tag: u8) {
        // Startup, Query, Sync, FunctionCall. CopyFail and CopyDone are answered through their Sync.
        if matches!(
            tag,
            frontend::STARTUP | frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL
        ) {
            self.requests.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Takes in one of the messages that tell of the session.
    pub(crate) fn received(&self, tag: u8, body: &[u8]) {
        match tag {
            tag::READY_FOR_QUERY => {
                let now = body.first().copied().unwrap_or(0);
                let before = self.transaction_status.swap(now, Ordering::AcqRel);
                if now == status::IDLE
                    && matches!(
                        before,
                        status::IN_TRANSACTION | status::IN_FAILED_TRANSACTION
                    )
                {
                    self.transaction_ends.fetch_add(1, Ordering::AcqRel);
                }
                self.answers.fetch_add(1, Ordering::SeqCst);
            }
            // Another one may have begun by the end of the answer.
            tag::COMMAND_COMPLETE
                if matches!(command_tag(body), "COMMIT" | "PREPARE TRANSACTION") =>
            {
                self.transaction_ends.fetch_add(1, Ordering::AcqRel);
            }
            tag::ERROR_RESPONSE => {
                let words = ServerError::parse(body);
                if words.is_fatal() {
                    self.end_with(words);
                }
            }
            tag::BACKEND_KEY_DATA => {
                let process = body.first_chunk().copied().map_or(0, i32::from_be_bytes);
                self.process.store(process, Ordering::Release);
            }
            tag::PARAMETER_STATUS => {
                let mut parts = body.split(|byte| *byte == 0);
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    self.report(
                        &String::from_utf8_lossy(name),
                        &String::from_utf8_lossy(value),
                    );
                }
            }
            _ => {}
        }
    }

    pub(crate) fn mark_activity(&self) {
        self.heard.mark();
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Of several, the first names the cause: a pooler adds its own.
    pub(crate) fn end_with(&self, words: ServerError) {
        let last = self.fatal_error.lock();
        last.unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(words);
        self.end();
    }

    fn report(&self, name: &str, value: &str) {
        let parameters = self.parameters.lock();
        let mut parameters = parameters.unwrap_or_else(PoisonError::into_inner);
        let has_room = parameters.len() < PARAMETERS;
        match parameters.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value.into(),
            None if has_room => parameters.push((name.into(), value.into())),
            None => {}
        }
    }
}

/// Servers report some fifteen settings; extensions may add theirs.
const PARAMETERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_settings_are_remembered_up_to_a_bound() {
        let status = SessionStatus::new();
        for n in 0..2 * PARAMETERS {
            status.received(b'S', format!("s{n}\0a\0").as_bytes());
        }
        status.received(b'S', b"s1\0b\0");
        assert_eq!(status.parameters.lock().unwrap().len(), PARAMETERS);
        assert_eq!(status.parameter("s1").as_deref(), Some("b"));
        assert_eq!(status.parameter("s300"), None);
    }
}
