//! Whom a message from the server is for.

use bytes::Bytes;

use super::pending::{Outcome, Owner};
use super::pipeline::Pipeline;
use super::preamble::Preamble;
use crate::protocol::{Fields, Malformed, Message, Messages, ServerError, command_tag, tag};

impl Pipeline {
    /// Says which request a message belongs to; sees to those that belong to none.
    pub(super) fn route(
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
            self.spend_cancel(&message.body);
        }
        let current = self.requests.current_index();
        let Some(index) = current else {
            return match message.tag {
                // The server says goodbye; the end of the stream follows.
                tag::ERROR_RESPONSE => Ok(None),
                _ => Err(malformed(Malformed)),
            };
        };
        let has_failed_to_copy =
            message.tag == tag::READY_FOR_QUERY && self.requests[index].takes_data;
        if has_failed_to_copy {
            self.answer_for_stray_data()?;
        }
        let request = &mut self.requests[index];
        if message.tag == tag::COMMAND_COMPLETE {
            request.takes_data = false;
        }
        let mut wanted = true;
        match message.tag {
            tag::PARSE_COMPLETE | tag::BIND_COMPLETE if request.preamble > 0 => wanted = false,
            b'3' => wanted = false,
            tag::COMMAND_COMPLETE if request.preamble > 0 => {
                request.preamble -= 1;
                request.begins = request.begins.saturating_sub(1);
                wanted = false;
                if request.preamble == 0 {
                    self.waiters.set_due();
                }
            }
            // The session's end, not the transaction's.
            tag::ERROR_RESPONSE
                if request.outcome == Outcome::Committed && self.status.has_ended() =>
            {
                wanted = false;
            }
            tag::ERROR_RESPONSE if request.preamble > 0 => {
                // Else the transaction is there, and has failed: the server sees to the rest.
                if request.begins > 0 {
                    self.preamble = Preamble::Refused;
                }
                request.preamble = 0;
                request.outcome = Outcome::Told;
                self.waiters.set_due();
            }
            tag::COMMAND_COMPLETE if request.single && command_tag(&message.body) == "COMMIT" => {
                request.outcome = Outcome::Committed;
            }
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE | tag::ERROR_RESPONSE => {
                request.outcome = Outcome::Told
            }
            // Nobody has data to copy here, and the server would wait for it for ever. In the extended
            // protocol it has ignored the Sync that was sent with the statement.
            tag::COPY_IN_RESPONSE | tag::COPY_BOTH_RESPONSE
                if !request.copies || request.owner != Owner::Waiting =>
            {
                let is_simple = request.simple;
                self.refuse_to_copy(is_simple);
                wanted = false;
            }
            tag::COPY_IN_RESPONSE => request.takes_data = true,
            // Nobody reads the data here, and without it success would be a lie.
            tag::COPY_OUT_RESPONSE if !request.copies => message = misplaced_copy(),
            tag::COPY_DATA | tag::COPY_DONE if !request.copies => wanted = false,
            tag::READY_FOR_QUERY if request.outcome == Outcome::Unknown => return Err(unsaid()),
            tag::READY_FOR_QUERY => {
                request.answered = true;
                if request.owner == Owner::Abandoned {
                    self.status.gave_up_statement();
                }
                if request.owner != Owner::Waiting {
                    self.requests.remove(index);
                    self.waiters.set_due();
                    return Ok(None);
                }
            }
            _ => {}
        }
        Ok(wanted.then_some((index, message)))
    }

    pub(super) fn refuse_to_copy(&mut self, is_simple: bool) {
        let mut messages = Messages::default();
        let _ = messages.copy_fail("COPY FROM STDIN needs a connection's copy_in()");
        if !is_simple {
            messages.sync();
        }
        self.output.extend_from_slice(messages.as_bytes());
    }

    fn notify(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields(body);
        if self.notifications.len() >= NOTIFICATIONS {
            self.notifications.pop_front();
            tracing::warn!("nobody reads this connection's notifications: the oldest is dropped");
        }
        self.notifications.push_back(diesel::pg::PgNotification {
            process_id: fields.i32()?,
            channel: fields.text()?.to_owned(),
            payload: fields.text()?.to_owned(),
        });
        self.waiters.set_due();
        Ok(())
    }
}

/// In place of the data that a COPY puts out where nobody reads it.
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

fn unsaid() -> Box<ServerError> {
    let words = "the server ended its answer without saying how the statement went";
    Box::new(ServerError::local("08P01", words))
}

/// How many notifications are kept for who may ask for them.
const NOTIFICATIONS: usize = 8192;

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

    /// An pipeline that has read `bytes`, and the server's end.
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
        );
        (pipeline, theirs)
    }

    #[tokio::test]
    async fn notifications_that_nobody_reads_do_not_add_up() {
        let notification = |n: usize| {
            let body = format!("\0\0\0\x07books\0{n}\0");
            let mut message = vec![tag::NOTIFICATION_RESPONSE];
            message.extend((body.len() as u32 + 4).to_be_bytes());
            message.extend(body.into_bytes());
            message
        };
        let stream: Vec<u8> = (0..NOTIFICATIONS + 2).flat_map(notification).collect();
        let (mut pipeline, _theirs) = pipeline(&stream);
        while pipeline.pump().is_ready() {}
        assert!(pipeline.lost.is_none());
        assert_eq!(pipeline.notifications.len(), NOTIFICATIONS);
        assert_eq!(pipeline.notifications[0].payload, "2");
    }

    #[tokio::test]
    async fn what_is_to_be_opened_next_outlasts_what_is_being_opened() {
        let (mut pipeline, _theirs) = pipeline(b"C\0\0\0\x0aBEGIN\0");
        pipeline.preamble = Preamble::Pending(vec!["BEGIN".into()]);
        let submitted = pipeline.submit(&Request::Simple("SELECT 1".to_owned()), true);
        let (id, begun) = submitted.unwrap();
        assert_eq!(begun, ["BEGIN"]);
        assert!(pipeline.requests.has_unconfirmed_preamble());
        // Its caller gives up and goes on inside of a savepoint before the answer is there.
        pipeline.requests.disown(id, false);
        pipeline.preamble = Preamble::Pending(vec!["SAVEPOINT a".into()]);
        assert!(pipeline.pump().is_ready());
        assert!(!pipeline.requests.has_unconfirmed_preamble());
        assert_eq!(pipeline.preamble.pending(), ["SAVEPOINT a"]);
    }

    #[tokio::test]
    async fn a_server_that_skips_an_answer_is_not_waited_for() {
        let (mut pipeline, _theirs) = pipeline(b"Z\0\0\0\x05I");
        pipeline.preamble = Preamble::Pending(vec!["BEGIN".into()]);
        let submitted = pipeline.submit(&Request::Simple("SELECT 1".to_owned()), true);
        let (id, _) = submitted.unwrap();
        assert!(matches!(pipeline.pump_for(id), Poll::Ready(None)));
        assert_eq!(pipeline.lost.unwrap().code, "08P01");
    }

    #[tokio::test]
    async fn an_answer_to_nothing_ends_the_session() {
        let (mut pipeline, _theirs) = pipeline(b"D\0\0\0\x06\0\0");
        assert!(pipeline.pump().is_pending());
        assert_eq!(pipeline.lost.unwrap().code, "08P01");
    }
}
