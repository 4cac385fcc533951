//! [`SessionStatus`]: what is known of a session without a request.

mod pending;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::login::LoginTrace;
use super::possible_bounds::PossibleBounds;
use super::process::{Identity, ServerProcess};
use super::schema_changes::SchemaChanges;
use crate::protocol::tag::{self, frontend, status};
use crate::protocol::{ServerError, is_command};
use crate::util::clock::{LastSeen, Moment};
use crate::util::lock;

/// The tap and the pipeline write it from the bytes of the session; the pool reads it.
#[derive(Debug)]
pub(crate) struct SessionStatus {
    /// When the server last sent anything.
    last_activity: LastSeen,
    /// When the stream last took anything.
    last_write: LastSeen,
    /// Whether the last read found nothing, so that whoever reads waits for the server.
    is_awaited: AtomicBool,
    /// Counts the requests sent: each is answered up to a ReadyForQuery.
    requests: AtomicU64,
    /// Counts the complete responses: each ended with a ReadyForQuery.
    responses: AtomicU64,
    /// The transaction status of the last ReadyForQuery, or 0 before the first.
    transaction_status: AtomicU8,
    /// Counts the ends of transactions.
    transaction_ends: AtomicU64,
    /// The statements that may have begun or ended a transaction.
    pub(crate) bounds: PossibleBounds,
    /// What the statements have changed of tables, views and types.
    pub(crate) schema: SchemaChanges,
    /// Whether a statement was given up on this side, which the server may still run.
    is_given_up: AtomicBool,
    /// The process ID of BackendKeyData, or 0.
    backend_pid: AtomicI32,
    ended: AtomicBool,
    /// Whether somebody waits in [`until_settled`](Self::until_settled) or [`until_logged_in`](Self::until_logged_in).
    is_settling: AtomicBool,
    settled: Notify,
    login: Mutex<LoginTrace>,
    /// Counts the transactions, one within the other, that a guard abandons if their future is dropped.
    guarded: AtomicU32,
    /// Counts the transactions whose ROLLBACK was dropped: the guards from before it stand for nothing any more.
    given_up: AtomicU32,
    abandoned: AtomicBool,
    owes_rollback: AtomicBool,
    fatal_error: Mutex<Option<ServerError>>,
    parameters: Mutex<Vec<(Box<str>, Box<str>)>>,
    pub(super) identity: Identity,
}

impl SessionStatus {
    pub(crate) fn new() -> Self {
        Self {
            last_activity: LastSeen::now(),
            last_write: LastSeen::now(),
            is_awaited: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            transaction_status: AtomicU8::new(0),
            transaction_ends: AtomicU64::new(0),
            bounds: PossibleBounds::default(),
            schema: SchemaChanges::default(),
            is_given_up: AtomicBool::new(false),
            backend_pid: AtomicI32::new(0),
            ended: AtomicBool::new(false),
            is_settling: AtomicBool::new(false),
            settled: Notify::new(),
            login: Mutex::default(),
            guarded: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
            abandoned: AtomicBool::new(false),
            owes_rollback: AtomicBool::new(false),
            fatal_error: Mutex::new(None),
            parameters: Mutex::new(Vec::new()),
            identity: Identity::default(),
        }
    }

    /// Returns for how long the server has sent nothing.
    pub(crate) fn silent_for(&self, now: &Moment) -> Duration {
        self.last_activity.elapsed_at(now)
    }

    /// Returns for how long nothing has passed in either direction.
    pub(crate) fn still_for(&self, now: &Moment) -> Duration {
        self.silent_for(now).min(self.last_write.elapsed_at(now))
    }

    /// Returns whether the last read found nothing.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Acquire)
    }

    /// Returns how many requests have been sent.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// Returns how many responses are complete.
    pub(crate) fn responses(&self) -> u64 {
        self.responses.load(Ordering::SeqCst)
    }

    /// Returns whether a response is outstanding.
    pub(crate) fn is_busy(&self) -> bool {
        // The startup message is the first request.
        self.responses.load(Ordering::SeqCst) < self.requests.load(Ordering::Acquire)
    }

    /// Returns whether a transaction is open or has failed, as of the last complete response.
    pub(crate) fn in_transaction(&self) -> bool {
        matches!(
            self.transaction_status.load(Ordering::Acquire),
            status::IN_TRANSACTION | status::IN_FAILED_TRANSACTION
        )
    }

    /// Returns whether a transaction has failed and is to be rolled back, as of the last complete response.
    pub(crate) fn in_failed_transaction(&self) -> bool {
        self.transaction_status.load(Ordering::Acquire) == status::IN_FAILED_TRANSACTION
    }

    /// Returns how many transactions have ended: too many if one response shows an end in two ways, never too few.
    pub(crate) fn transaction_ends(&self) -> u64 {
        self.transaction_ends.load(Ordering::Acquire)
    }

    /// Returns whether a statement was given up on this side: no other may be sent, and the end of the session says nothing
    /// of the server.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::SeqCst)
    }

    pub(super) fn set_given_up(&self, is_given_up: bool) {
        self.is_given_up.store(is_given_up, Ordering::SeqCst);
    }

    /// Returns whether a response is outstanding, or may be because the session has ended.
    pub(crate) fn may_miss_response(&self) -> bool {
        self.is_busy() || self.has_ended()
    }

    /// Returns whether the future of a transaction was dropped before the transaction's end.
    pub(crate) fn has_abandoned_transaction(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(super) fn abandon_transaction(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(super) fn forget_abandoned_transaction(&self) {
        self.owes_rollback.store(false, Ordering::Release);
        self.abandoned.store(false, Ordering::Release);
    }

    /// Notes that a guard stands for a transaction; returns what [`unguard`](Self::unguard) takes.
    pub(super) fn guard(&self) -> u32 {
        self.guarded.fetch_add(1, Ordering::AcqRel);
        self.given_up.load(Ordering::Acquire)
    }

    /// Notes that a guard does not stand for its transaction any more; returns whether it did until now.
    pub(super) fn unguard(&self, given_up: u32) -> bool {
        let stands = self.given_up.load(Ordering::Acquire) == given_up;
        if stands {
            self.guarded.fetch_sub(1, Ordering::AcqRel);
        }
        stands
    }

    /// Notes that the future of a ROLLBACK was dropped; whether the ROLLBACK `was_sent` or is owed.
    pub(super) fn give_up_rollback(&self, was_sent: bool) {
        self.given_up.fetch_add(1, Ordering::AcqRel);
        self.guarded.store(0, Ordering::Release);
        self.owes_rollback.store(!was_sent, Ordering::Release);
    }

    /// Returns whether a ROLLBACK is to be sent in front of the next request.
    pub(crate) fn owes_rollback(&self) -> bool {
        self.owes_rollback.load(Ordering::Acquire)
    }

    /// Returns whether a ROLLBACK is to be sent in front of the request that is being sent.
    pub(super) fn take_owed_rollback(&self) -> bool {
        self.owes_rollback() && self.owes_rollback.swap(false, Ordering::AcqRel)
    }

    /// Notes that an abandoned response is complete. If no guard stands for the open transaction, the transaction is
    /// abandoned too: its future may have been dropped together with the statement.
    pub(super) fn note_abandoned_response(&self) {
        let open = self.in_transaction() && !self.in_failed_transaction() && !self.owes_rollback();
        if open && self.guarded.load(Ordering::Acquire) == 0 {
            self.abandon_transaction();
        }
    }

    /// Waits until no response is outstanding, or the session has ended. Only one may wait.
    pub(crate) async fn until_settled(&self) {
        self.until(|status| !status.is_busy()).await;
    }

    /// Waits until a response has made it so, or the session has ended.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        self.is_settling.store(true, Ordering::SeqCst);
        while !is_so(self) && !self.has_ended() {
            self.settled.notified().await;
        }
        self.is_settling.store(false, Ordering::SeqCst);
    }

    fn note_settled(&self) {
        if self.is_settling.load(Ordering::SeqCst) {
            // Whoever is about to wait finds the permit.
            self.settled.notify_one();
        }
    }

    /// Returns whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns whether the login has woken a compute.
    pub(crate) fn was_cold(&self) -> bool {
        self.login().was_cold
    }

    /// Returns what the login has shown so far.
    pub(crate) fn login(&self) -> LoginTrace {
        *lock(&self.login)
    }

    pub(super) fn trace_login(&self, trace: LoginTrace) {
        *lock(&self.login) = trace;
    }

    /// Returns the fatal error that the server has sent, if it has.
    pub(crate) fn fatal_error(&self) -> Option<ServerError> {
        lock(&self.fatal_error).clone()
    }

    /// Has the process that runs the statements name itself with the next request. If the session `is_direct`, that is
    /// its process; otherwise only the one is that was named at login: behind a pooler, each transaction has another.
    pub(crate) fn want_process(&self, is_direct: bool) {
        self.identity.want(is_direct);
    }

    /// Returns the process that runs the statements, if it has named itself.
    pub(crate) fn process(&self) -> Option<ServerProcess> {
        self.identity.process()
    }

    /// Returns the process ID that the server reported at login: Postgres reports its own, poolers an invented one.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend_pid.load(Ordering::Acquire)
    }

    /// Returns the value that the server last reported for a setting.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let parameters = lock(&self.parameters);
        let mut found = parameters.iter().filter(|(known, _)| **known == *name);
        found.next().map(|(_, value)| value.to_string())
    }

    /// Takes note of a message that was sent.
    pub(crate) fn sent(&self, tag: u8) {
        // CopyFail and CopyDone are no requests of their own: their Query or Sync is answered.
        if matches!(
            tag,
            frontend::STARTUP | frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL
        ) {
            self.requests.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Takes note of a message that was received.
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
                let response = self.responses.fetch_add(1, Ordering::SeqCst) + 1;
                self.schema.note_response(response, now == status::IDLE);
                self.note_settled();
            }
            // The rest of the response may have begun another transaction.
            tag::COMMAND_COMPLETE
                if is_command(body, "COMMIT") || is_command(body, "PREPARE TRANSACTION") =>
            {
                self.transaction_ends.fetch_add(1, Ordering::AcqRel);
            }
            tag::COMMAND_COMPLETE => self.schema.note_command(body),
            tag::ERROR_RESPONSE => {
                let error = ServerError::parse(body);
                if error.is_fatal() {
                    self.end_with(error);
                }
            }
            tag::BACKEND_KEY_DATA => {
                let pid = body.first_chunk().copied().map_or(0, i32::from_be_bytes);
                self.backend_pid.store(pid, Ordering::Release);
            }
            tag::PARAMETER_STATUS => {
                let mut parts = body.split(|byte| *byte == 0);
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    self.set_parameter(
                        &String::from_utf8_lossy(name),
                        &String::from_utf8_lossy(value),
                    );
                }
            }
            _ => {}
        }
    }

    /// Notes that the server has sent something.
    pub(crate) fn mark_activity(&self) {
        self.last_activity.mark();
    }

    /// Notes that the stream has taken something.
    pub(super) fn mark_write(&self) {
        self.last_write.mark();
    }

    /// Notes whether a read found nothing.
    pub(super) fn set_awaited(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Ordering::Release);
    }

    /// Notes that the session has ended.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.note_settled();
    }

    /// Notes that the session has ended with a fatal error. The first of several names the cause: a pooler adds its own.
    pub(crate) fn end_with(&self, error: ServerError) {
        lock(&self.fatal_error).get_or_insert(error);
        self.end();
    }

    fn set_parameter(&self, name: &str, value: &str) {
        let mut parameters = lock(&self.parameters);
        let has_room = parameters.len() < MAX_PARAMETERS;
        match parameters.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value.into(),
            None if has_room => parameters.push((name.into(), value.into())),
            None => {}
        }
    }
}

/// How many settings are remembered: servers report some fifteen, and extensions may add theirs.
const MAX_PARAMETERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_settings_are_remembered_up_to_a_bound() {
        let status = SessionStatus::new();
        for n in 0..2 * MAX_PARAMETERS {
            status.received(tag::PARAMETER_STATUS, format!("s{n}\0a\0").as_bytes());
        }
        status.received(tag::PARAMETER_STATUS, b"s1\0b\0");
        assert_eq!(status.parameters.lock().unwrap().len(), MAX_PARAMETERS);
        assert_eq!(status.parameter("s1").as_deref(), Some("b"));
        assert_eq!(status.parameter("s300"), None);
    }
}
