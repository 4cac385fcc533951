//! Whom a message from the server is for.

use bytes::Bytes;

use super::engine::Engine;
use super::error::ServerError;
use super::exchange::{Outcome, Owner};
use super::message::{Fields, Malformed, Message, tag};
use super::opening::Opening;
use super::request::Messages;

impl Engine {
    /// Says which exchange a message belongs to; sees to those that belong to none.
    pub(super) fn route(
        &mut self,
        mut message: Message,
    ) -> Result<Option<(usize, Message)>, Box<ServerError>> {
        match message.tag {
            b'N' => {
                let notice = ServerError::parse(&message.body);
                tracing::debug!(severity = notice.severity, "{}", notice.message);
                return Ok(None);
            }
            b'S' => {
                self.observed.received(b'S', &message.body);
                return Ok(None);
            }
            b'A' => {
                self.notify(&message.body).map_err(malformed)?;
                return Ok(None);
            }
            b'C' | b'E' | b'Z' => self.observed.received(message.tag, &message.body),
            _ => {}
        }
        if message.tag == b'E' {
            self.spend_cancel(&message.body);
        }
        let current = self.exchanges.current_index();
        let Some(index) = current else {
            return match message.tag {
                // The server says goodbye; the end of the stream follows.
                b'E' => Ok(None),
                _ => Err(malformed(Malformed)),
            };
        };
        let has_failed_to_copy = message.tag == b'Z' && self.exchanges[index].takes_data;
        if has_failed_to_copy && !self.observed.in_transaction() {
            self.answer_for_stray_data()?;
        }
        let exchange = &mut self.exchanges[index];
        if message.tag == b'C' {
            exchange.takes_data = false;
        }
        let mut wanted = true;
        match message.tag {
            b'1' | b'2' if exchange.opening > 0 => wanted = false,
            b'3' => wanted = false,
            b'C' if exchange.opening > 0 => {
                exchange.opening -= 1;
                exchange.begins = exchange.begins.saturating_sub(1);
                wanted = false;
                if exchange.opening == 0 {
                    self.waiters.set_due();
                }
            }
            // The session's end, not the transaction's.
            b'E' if exchange.outcome == Outcome::Committed && self.observed.has_ended() => {
                wanted = false;
            }
            b'E' if exchange.opening > 0 => {
                // Else the transaction is there, and has failed: the server sees to the rest.
                if exchange.begins > 0 {
                    self.opening = Opening::Refused;
                }
                exchange.opening = 0;
                exchange.outcome = Outcome::Told;
                self.waiters.set_due();
            }
            b'C' if exchange.single && tag(&message.body) == "COMMIT" => {
                exchange.outcome = Outcome::Committed;
            }
            b'C' | b'I' | b'E' => exchange.outcome = Outcome::Told,
            // Nobody has data to copy here, and the server would wait for it for ever. In the extended
            // protocol it has ignored the Sync that was sent with the statement.
            b'G' | b'W' if !exchange.copies || exchange.owner != Owner::Waits => {
                let is_simple = exchange.simple;
                self.refuse_to_copy(is_simple);
                wanted = false;
            }
            b'G' => exchange.takes_data = true,
            // Nobody reads the data here, and without it success would be a lie.
            b'H' if !exchange.copies => message = misplaced_copy(),
            b'd' | b'c' if !exchange.copies => wanted = false,
            b'Z' if exchange.outcome == Outcome::Unknown => return Err(unsaid()),
            b'Z' => {
                exchange.answered = true;
                if exchange.owner == Owner::Gone {
                    self.observed.gave_up_statement();
                }
                if exchange.owner != Owner::Waits {
                    self.exchanges.remove(index);
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
        tag: b'E',
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

    use super::super::Channel;
    use super::super::observed::Observed;
    use super::super::request::Request;
    use super::super::waiters::Waiters;
    use super::*;
    use crate::transport::Transport;

    /// An engine that has read `bytes`, and the server's end.
    fn engine(bytes: &[u8]) -> (Engine, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let channel = Channel {
            transport: Transport::Unix(ours),
            _open: TaskTracker::new().token(),
        };
        let observed = Arc::new(Observed::new());
        let engine = Engine::new(
            channel,
            BytesMut::from(bytes),
            observed,
            Arc::new(Waiters::default()),
        );
        (engine, theirs)
    }

    #[tokio::test]
    async fn notifications_that_nobody_reads_do_not_add_up() {
        let notification = |n: usize| {
            let body = format!("\0\0\0\x07books\0{n}\0");
            let mut message = vec![b'A'];
            message.extend((body.len() as u32 + 4).to_be_bytes());
            message.extend(body.into_bytes());
            message
        };
        let stream: Vec<u8> = (0..NOTIFICATIONS + 2).flat_map(notification).collect();
        let (mut engine, _theirs) = engine(&stream);
        while engine.pump().is_ready() {}
        assert!(engine.lost.is_none());
        assert_eq!(engine.notifications.len(), NOTIFICATIONS);
        assert_eq!(engine.notifications[0].payload, "2");
    }

    #[tokio::test]
    async fn what_is_to_be_opened_next_outlasts_what_is_being_opened() {
        let (mut engine, _theirs) = engine(b"C\0\0\0\x0aBEGIN\0");
        engine.opening = Opening::Pending(vec!["BEGIN".into()]);
        let submitted = engine.submit(&Request::Simple("SELECT 1".to_owned()), true);
        let (id, begun) = submitted.unwrap();
        assert_eq!(begun, ["BEGIN"]);
        assert!(engine.exchanges.is_opening());
        // Its caller gives up and goes on inside of a savepoint before the answer is there.
        engine.exchanges.disown(id, false);
        engine.opening = Opening::Pending(vec!["SAVEPOINT a".into()]);
        assert!(engine.pump().is_ready());
        assert!(!engine.exchanges.is_opening());
        assert_eq!(engine.opening.pending(), ["SAVEPOINT a"]);
    }

    #[tokio::test]
    async fn a_server_that_skips_an_answer_is_not_waited_for() {
        let (mut engine, _theirs) = engine(b"Z\0\0\0\x05I");
        engine.opening = Opening::Pending(vec!["BEGIN".into()]);
        let submitted = engine.submit(&Request::Simple("SELECT 1".to_owned()), true);
        let (id, _) = submitted.unwrap();
        assert!(matches!(engine.pump_for(id), Poll::Ready(None)));
        assert_eq!(engine.lost.unwrap().code, "08P01");
    }

    #[tokio::test]
    async fn an_answer_to_nothing_ends_the_session() {
        let (mut engine, _theirs) = engine(b"D\0\0\0\x06\0\0");
        assert!(engine.pump().is_pending());
        assert_eq!(engine.lost.unwrap().code, "08P01");
    }
}
