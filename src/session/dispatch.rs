//! Dispatches each message of the server to the request that it answers.

use bytes::Bytes;

use super::pending::{CopyIn, Outcome, Owner};
use super::pipeline::Pipeline;
use super::preamble::Preamble;
use crate::protocol::{Fields, Malformed, Message, Messages, ServerError, is_command, tag};

impl Pipeline {
    /// Returns the request that a message answers, by its index, with the message; handles a message itself that no
    /// caller is to see.
    pub(super) fn dispatch(
        &mut self,
        mut message: Message,
    ) -> Result<Option<(usize, Message)>, Box<ServerError>> {
        match message.tag {
            tag::NOTICE_RESPONSE => {
                let notice = ServerError::parse(&message.body);
                tracing::debug!(severity = notice.severity, "{}", notice.message);
                return Ok(None);
            }
            tag::PARAMETER_STATUS => {
                self.status.received(tag::PARAMETER_STATUS, &message.body);
                return Ok(None);
            }
            tag::NOTIFICATION_RESPONSE => {
                self.notify(&message.body).map_err(malformed)?;
                return Ok(None);
            }
            tag::COMMAND_COMPLETE | tag::ERROR_RESPONSE | tag::READY_FOR_QUERY => {
                self.status.received(message.tag, &message.body)
            }
            _ => {}
        }
        if message.tag == tag::ERROR_RESPONSE {
            self.note_cancelled(&message.body);
            let current = self.requests.current().filter(|_| self.is_awaited());
            if current.is_some_and(|request| request.asks_process) {
                self.status.identity.fail(&message.body);
            }
            if current.is_some_and(|request| request.is_required) {
                return Err(Box::new(unset(&ServerError::parse(&message.body))));
            }
        }
        // One that is held back has no answer.
        let current = self.requests.current_index().filter(|_| self.is_awaited());
        let Some(index) = current else {
            return match message.tag {
                // A FATAL error; the end of the stream follows.
                tag::ERROR_RESPONSE => Ok(None),
                _ => Err(malformed(Malformed)),
            };
        };
        let copy_in = self.requests[index].copy_in;
        let request = &mut self.requests[index];
        if message.tag == tag::COMMAND_COMPLETE {
            request.copy_in = CopyIn::None;
        }
        let mut is_wanted = true;
        match message.tag {
            tag::PARSE_COMPLETE if request.preamble > 0 => is_wanted = false,
            tag::BIND_COMPLETE | tag::CLOSE_COMPLETE => is_wanted = false,
            tag::DATA_ROW if request.asks_process => {
                let told = self.status.backend_pid();
                self.status.identity.read(&message.body, told);
            }
            tag::COMMAND_COMPLETE if request.preamble > 0 => {
                request.preamble -= 1;
                request.begin_end = request.begin_end.saturating_sub(1);
                is_wanted = false;
                if request.preamble == 0 {
                    self.is_wake_due = true;
                }
            }
            // The error ends the session, and not the transaction, which is committed.
            tag::ERROR_RESPONSE
                if request.outcome == Outcome::Committed && self.status.has_ended() =>
            {
                is_wanted = false;
            }
            tag::ERROR_RESPONSE if request.preamble > 0 => {
                // Behind BEGIN, the transaction is open and has failed: the server refuses further statements.
                if request.begin_end > 0 {
                    self.preamble = Preamble::Failed;
                }
                request.preamble = 0;
                request.outcome = Outcome::Reported;
                self.is_wake_due = true;
            }
            tag::COMMAND_COMPLETE if request.single && is_command(&message.body, "COMMIT") => {
                request.outcome = Outcome::Committed;
            }
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE | tag::ERROR_RESPONSE => {
                request.outcome = Outcome::Reported
            }
            // No caller has data to copy, and the server would wait for ever. In the extended protocol the server has
            // ignored the Sync that was sent with the statement.
            tag::COPY_IN_RESPONSE | tag::COPY_BOTH_RESPONSE
                if !request.copies || request.owner != Owner::Waiting =>
            {
                let is_simple = request.simple;
                self.refuse_copy(is_simple);
                is_wanted = false;
            }
            tag::COPY_IN_RESPONSE => request.copy_in = CopyIn::TakesData,
            // No caller reads the data, so the statement must not succeed.
            tag::COPY_OUT_RESPONSE if !request.copies => message = misplaced_copy(),
            tag::COPY_DATA | tag::COPY_DONE if !request.copies => is_wanted = false,
            tag::READY_FOR_QUERY if request.outcome == Outcome::Unknown => {
                return Err(missing_outcome());
            }
            tag::READY_FOR_QUERY => {
                let owner = request.owner;
                self.requests.set_answered();
                if copy_in != CopyIn::None {
                    self.end_failed_copy()?;
                }
                if owner == Owner::Abandoned {
                    self.status.note_abandoned_response();
                }
                if owner != Owner::Waiting {
                    self.requests.remove(index);
                    self.is_wake_due = true;
                    return Ok(None);
                }
            }
            _ => {}
        }
        Ok(is_wanted.then_some((index, message)))
    }

    /// Ends a COPY FROM STDIN that has no data.
    pub(super) fn refuse_copy(&mut self, is_simple: bool) {
        let mut messages = Messages::default();
        let _ = messages.copy_fail("COPY FROM STDIN needs a connection's copy_in()");
        if !is_simple {
            messages.sync();
        }
        self.output.extend_from_slice(messages.as_bytes());
    }

    /// Queues a notification.
    fn notify(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields(body);
        if self.notifications.len() >= MAX_NOTIFICATIONS {
            self.notifications.pop_front();
            tracing::warn!(
                "the notifications of this connection are not read: the oldest is dropped"
            );
        }
        self.notifications.push_back(diesel::pg::PgNotification {
            process_id: fields.i32()?,
            channel: fields.text()?.to_owned(),
            payload: fields.text()?.to_owned(),
        });
        self.is_wake_due = true;
        Ok(())
    }
}

/// Returns the error that takes the place of a CopyOutResponse that no caller expects.
fn misplaced_copy() -> Message {
    let body = b"VERROR\0C0A000\0MCOPY TO STDOUT needs a connection's copy_out()\0\0";
    Message {
        tag: tag::ERROR_RESPONSE,
        body: Bytes::from_static(body),
    }
}

fn malformed(malformed: Malformed) -> Box<ServerError> {
    Box::new(malformed.into())
}

fn missing_outcome() -> Box<ServerError> {
    let message = "the server ended its response without the outcome of the statement";
    Box::new(ServerError::local("08P01", message))
}

/// How many unread notifications are kept.
const MAX_NOTIFICATIONS: usize = 8192;

#[cfg(all(test, unix))]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;

    use bytes::BytesMut;
    use tokio::net::UnixStream;
    use tokio_util::task::TaskTracker;

    use super::super::channel::Channel;
    use super::super::status::SessionStatus;
    use super::super::waiters::Waiters;
    use super::*;
    use crate::protocol::Request;
    use crate::transport::Transport;
    use crate::util::effects::Effects;

    /// Returns a pipeline that has read `bytes`, and the server's end of its stream.
    fn pipeline(bytes: &[u8]) -> (Pipeline, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let channel = Channel {
            transport: Transport::Unix(ours),
            _open: TaskTracker::new().token(),
        };
        let status = Arc::new(SessionStatus::new());
        let pipeline = Pipeline::new(
            channel,
            BytesMut::from(bytes),
            status,
            Arc::new(Waiters::default()),
            Arc::default(),
        );
        (pipeline, theirs)
    }

    #[tokio::test]
    async fn unread_notifications_are_bounded() {
        let notification = |n: usize| {
            let body = format!("\0\0\0\x07books\0{n}\0");
            let mut message = vec![tag::NOTIFICATION_RESPONSE];
            message.extend((body.len() as u32 + 4).to_be_bytes());
            message.extend(body.into_bytes());
            message
        };
        let stream: Vec<u8> = (0..MAX_NOTIFICATIONS + 2).flat_map(notification).collect();
        let (mut pipeline, _theirs) = pipeline(&stream);
        while pipeline.pump().is_ready() {}
        assert!(pipeline.lost.is_none());
        assert_eq!(pipeline.notifications.len(), MAX_NOTIFICATIONS);
        assert_eq!(pipeline.notifications[0].payload, "2");
    }

    #[tokio::test]
    async fn a_new_preamble_outlasts_the_response_to_the_one_before() {
        let (mut pipeline, _theirs) = pipeline(b"C\0\0\0\x0aBEGIN\0");
        pipeline.preamble = Preamble::Pending(vec!["BEGIN".into()]);
        let submitted = pipeline.submit(
            &Request::Simple("SELECT 1".to_owned()),
            Effects::default(),
            true,
        );
        let (id, preamble) = submitted.unwrap();
        assert_eq!(preamble, ["BEGIN"]);
        assert!(pipeline.requests.is_blocked());
        // The caller drops the statement and goes on inside a savepoint before the response has arrived.
        pipeline.requests.abandon(id, false);
        pipeline.preamble = Preamble::Pending(vec!["SAVEPOINT a".into()]);
        assert!(pipeline.pump().is_ready());
        assert_eq!(pipeline.requests.current().unwrap().preamble, 0);
        assert_eq!(pipeline.preamble.pending(), ["SAVEPOINT a"]);
    }

    #[tokio::test]
    async fn a_response_without_an_outcome_ends_the_session() {
        let (mut pipeline, _theirs) = pipeline(b"Z\0\0\0\x05I");
        pipeline.preamble = Preamble::Pending(vec!["BEGIN".into()]);
        let submitted = pipeline.submit(
            &Request::Simple("SELECT 1".to_owned()),
            Effects::default(),
            true,
        );
        let (id, _) = submitted.unwrap();
        assert!(matches!(pipeline.pump_until(id), Poll::Ready(None)));
        assert_eq!(pipeline.lost.unwrap().code, "08P01");
    }

    #[tokio::test]
    async fn a_response_without_a_request_ends_the_session() {
        let (mut pipeline, _theirs) = pipeline(b"D\0\0\0\x06\0\0");
        assert!(pipeline.pump().is_pending());
        assert_eq!(pipeline.lost.unwrap().code, "08P01");
    }
}

/// Returns the error of a session whose settings the server has refused, with statements under way behind them.
fn unset(refusal: &ServerError) -> ServerError {
    let refusal = &refusal.message;
    let words = format!(
        "the settings of the session were refused ({refusal}); the statement that was sent behind them may have run"
    );
    ServerError::local("08006", &words)
}
