//! [`Pipeline`]: the stream and the pending requests, behind the lock of a [`SessionHandle`](super::SessionHandle).
//! Nothing here waits.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;

use super::channel::Channel;
use super::drain::DrainStream;
use super::error::{closed, connection_lost};
use super::input::Input;
use super::pending::{Owner, PendingRequest, PendingRequests};
use super::pipelining::Pipelining;
use super::preamble::{Command, Preamble, is_begin, prefix};
use super::process::QUESTION;
use super::status::SessionStatus;
use super::waiters::Waiters;
use crate::protocol::{Message, Messages, Next, Request, ServerError, Unsendable, tag};
use crate::util::effects::Effects;

/// The requests that share one stream, and are answered in their order.
pub(super) struct Pipeline {
    pub(super) channel: Option<Channel>,
    /// Wakes all waiters: the one that polled last may be gone when the stream wakes.
    pub(super) waker: Waker,
    pub(super) waiters: Arc<Waiters>,
    /// Whether the waiters are to be woken once the lock is free. Stands behind the lock: whoever held it would else wake them
    /// for a change that is yet to come, and nobody behind the change.
    pub(super) is_wake_due: bool,
    pub(super) status: Arc<SessionStatus>,
    pub(super) input: Input,
    pub(super) output: BytesMut,
    /// The last requests, while they are held back because others are unanswered.
    pub(super) held: VecDeque<Vec<u8>>,
    pub(super) unflushed: bool,
    /// Whether the stream did not take all of the output when it was last written.
    pub(super) is_write_blocked: bool,
    /// Whether a waiter is about to write the output, with what others submit meanwhile.
    pub(super) is_write_due: bool,
    /// Counts the bytes that were written.
    pub(super) written: u64,
    pub(super) requests: PendingRequests,
    pub(super) pipelining: Arc<Pipelining>,
    pub(super) next_id: u64,
    pub(super) preamble: Preamble,
    /// What runs in front of the first request.
    pub(super) settings: Option<&'static str>,
    pub(super) notifications: VecDeque<diesel::pg::PgNotification>,
    /// Whether a task reads the responses that nobody waits for.
    pub(super) is_reading_orphans: bool,
    /// Counts the cancel requests that may be under way.
    pub(super) cancels: u32,
    /// Counts those that a server has not confirmed yet.
    pub(super) open_cancels: u32,
    /// Why the session has ended.
    pub(super) lost: Option<Box<ServerError>>,
}

impl Pipeline {
    pub(super) fn new(
        channel: Channel,
        read: BytesMut,
        status: Arc<SessionStatus>,
        waiters: Arc<Waiters>,
        pipelining: Arc<Pipelining>,
    ) -> Self {
        Self {
            channel: Some(channel),
            waker: Waker::from(Arc::clone(&waiters)),
            waiters,
            is_wake_due: false,
            status,
            input: Input::new(read),
            output: BytesMut::new(),
            held: VecDeque::new(),
            unflushed: false,
            is_write_blocked: false,
            is_write_due: false,
            written: 0,
            requests: PendingRequests::default(),
            pipelining,
            next_id: 0,
            preamble: Preamble::Empty,
            settings: None,
            notifications: VecDeque::new(),
            is_reading_orphans: false,
            cancels: 0,
            open_cancels: 0,
            lost: None,
        }
    }

    /// Encodes a request that has these effects, `with_preamble` if the pending commands are to ride in front of it. Returns
    /// the request's ID and those commands.
    pub(super) fn submit(
        &mut self,
        request: &Request,
        effects: Effects,
        with_preamble: bool,
    ) -> Result<(u64, Vec<Command>), Unsendable> {
        self.submit_owed(request)?;
        let commands = match with_preamble {
            true => self.preamble.pending(),
            false => &[],
        };
        let mut messages = Messages::default();
        let mut savepoints = None;
        let (simple, single, tag) = match request {
            Request::Extended(_) => {
                for command in commands {
                    messages.command(command)?;
                }
                (false, true, tag::frontend::SYNC)
            }
            Request::Simple(sql) | Request::Copy(sql) => {
                self.status.bounds.note(sql, effects);
                match commands {
                    [] => messages.query(sql)?,
                    _ if commands.iter().any(is_begin) => {
                        messages.query(&(prefix(commands) + sql))?;
                    }
                    _ => {
                        messages.query(sql)?;
                        savepoints = Some(prefix(commands));
                    }
                }
                if let Some(savepoints) = &savepoints {
                    // If they fail, the transaction has failed, and the response to the request says so.
                    self.submit_ignored(savepoints, |_| {})?;
                }
                let single = !sql.trim_end().trim_end_matches(';').contains(';');
                (true, single, tag::frontend::QUERY)
            }
        };
        let preamble = match (with_preamble, savepoints) {
            (true, None) => self.preamble.take(),
            (true, Some(_)) => {
                self.preamble.take();
                Vec::new()
            }
            (false, _) => Vec::new(),
        };
        let parts = match request {
            Request::Extended(group) => [&group.closes, &messages, &group.messages],
            Request::Simple(_) | Request::Copy(_) => {
                [&Messages::default(), &Messages::default(), &messages]
            }
        };
        let pending = PendingRequest {
            preamble: preamble.len(),
            begin_end: preamble.iter().rposition(is_begin).map_or(0, |at| at + 1),
            simple,
            single,
            copies: matches!(request, Request::Copy(_)),
            ..PendingRequest::of(Owner::Waiting)
        };
        self.status.sent(tag);
        let id = self.push(pending, parts.map(Messages::as_bytes));
        // The first poll of the response writes it, together with the requests that are submitted meanwhile.
        Ok((id, preamble))
    }

    /// Encodes what is owed to the server in front of `request`.
    pub(super) fn submit_owed(&mut self, request: &Request) -> Result<(), Unsendable> {
        if self.status.take_owed_rollback() {
            self.submit_ignored("ROLLBACK", |_| {})?;
        }
        if self.status.identity.is_wanted() {
            self.ask_process(request)?;
        }
        if let Some(settings) = self.settings.take() {
            self.submit_ignored(settings, |settings| settings.is_required = true)?;
        }
        Ok(())
    }

    /// Asks the process of the server to name itself in front of `request`: outside of transactions, which the question
    /// would be the first statement of, and not in front of a check, which is empty.
    #[cold]
    fn ask_process(&mut self, request: &Request) -> Result<(), Unsendable> {
        let is_check = matches!(request, Request::Simple(sql) if sql.is_empty());
        if is_check || self.requests.is_outstanding() || self.status.in_transaction() {
            return Ok(());
        }
        self.status.identity.set_asked();
        self.submit_ignored(QUESTION, |question| question.asks_process = true)
    }

    /// Encodes SQL whose response nobody waits for.
    fn submit_ignored(
        &mut self,
        sql: &str,
        mark: impl FnOnce(&mut PendingRequest),
    ) -> Result<(), Unsendable> {
        let mut messages = Messages::default();
        messages.query(sql)?;
        self.status.sent(tag::frontend::QUERY);
        let mut request = PendingRequest {
            simple: true,
            ..PendingRequest::of(Owner::Satisfied)
        };
        mark(&mut request);
        self.push(request, [messages.as_bytes()]);
        Ok(())
    }

    /// Sends a request that fails, behind a COPY that has failed.
    ///
    /// The server ignores the rest of the COPY's data. A pooler that has taken the server back by then assigns one to
    /// the rest, and keeps it assigned until there is a response. A PgBouncer that tracks statements expects a response
    /// to CopyDone and CopyFail as well, unless it has its pull request 1471, and stops only at a group that fails.
    pub(super) fn end_failed_copy(&mut self) -> Result<(), Box<ServerError>> {
        let mut messages = Messages::default();
        messages.fail();
        messages.sync();
        self.status.sent(tag::frontend::SYNC);
        self.push(PendingRequest::of(Owner::Satisfied), [messages.as_bytes()]);
        self.write()
    }

    /// Reads one message, and buffers it for its owner. Ready while there may be more to read.
    pub(super) fn pump(&mut self) -> Poll<()> {
        if self.requests.is_full() {
            self.write_only();
            return Poll::Pending;
        }
        match ready!(self.read()) {
            Some((index, message)) => {
                self.keep(index, message);
                Poll::Ready(())
            }
            None if self.channel.is_none() => Poll::Pending,
            None => Poll::Ready(()),
        }
    }

    /// Reads what has arrived, up to [`READ_BATCH`] messages: a server can go on sending.
    pub(super) fn read_available(&mut self) {
        for _ in 0..READ_BATCH {
            if self.pump().is_pending() {
                return;
            }
        }
    }

    /// Reads one message, and returns it if it answers request `id`; else buffers it as [`pump`](Self::pump) does.
    pub(super) fn pump_until(&mut self, id: u64) -> Poll<Option<Message>> {
        if self.requests.stalled(Some(id)).is_some() {
            self.write_only();
            return Poll::Pending;
        }
        let Some((index, message)) = ready!(self.read()) else {
            return match self.channel {
                // The stream is taken until it is known why the session is to end.
                None if self.lost.is_none() => Poll::Pending,
                _ => Poll::Ready(None),
            };
        };
        if self.requests[index].id != id {
            self.keep(index, message);
            return Poll::Ready(None);
        }
        if self.requests.is_answered(index) {
            self.requests.remove(index);
            if self.requests.is_outstanding() {
                // The waiters behind may have polled while this response was in front of them, and bytes that are
                // read already wake nobody. If each of many read its own response alone, it would wake all others.
                self.read_available();
                let next = self.requests.current();
                let is_given_up = next.is_none_or(|next| next.owner != Owner::Waiting);
                if is_given_up || !self.waiters.is_exhausted() {
                    self.is_wake_due = true;
                }
            }
        }
        Poll::Ready(Some(message))
    }

    /// Buffers a message for its owner, or drops it if the owner has gone.
    fn keep(&mut self, index: usize, message: Message) {
        if self.requests[index].owner == Owner::Waiting {
            self.requests.buffer(index, message);
        }
        self.is_wake_due = true;
    }

    /// Reads one message. None if no caller is to see it, or if the session has ended.
    fn read(&mut self) -> Poll<Option<(usize, Message)>> {
        let dispatched = match ready!(self.poll_next()) {
            Ok(Some(message)) => {
                let ready = message.tag == tag::READY_FOR_QUERY;
                let dispatched = self.dispatch(message);
                if ready {
                    self.end_if_cancel_pending();
                }
                dispatched
            }
            Ok(None) => Ok(None),
            Err(cause) => Err(cause),
        };
        Poll::Ready(dispatched.unwrap_or_else(|cause| {
            self.set_lost(*cause);
            None
        }))
    }

    /// Writes the output, and reads the next message. None if the stream is closed.
    fn poll_next(&mut self) -> Poll<Result<Option<Message>, Box<ServerError>>> {
        self.write()?;
        loop {
            let next = self.input.next();
            let missing = match next.map_err(|malformed| Box::new(malformed.into()))? {
                Next::Message(message) => return Poll::Ready(Ok(Some(message))),
                Next::Missing(missing) => missing,
            };
            // Behind what has arrived, which is no answer to them.
            if !self.held.is_empty() {
                self.release()?;
            }
            let Some(channel) = &mut self.channel else {
                return Poll::Ready(Ok(None));
            };
            // The stream still has this waker, and would have called it.
            if self.waiters.is_exhausted() {
                self.shrink();
                return Poll::Pending;
            }
            let mut cx = Context::from_waker(&self.waker);
            let transport = Pin::new(&mut channel.transport);
            // Set before reading, or a wake in between would be lost.
            self.waiters.set_exhausted(true);
            let filled = self.input.poll_fill(&mut cx, transport, missing);
            if filled.is_ready() {
                self.waiters.set_exhausted(false);
            }
            match filled {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Box::new(closed()))),
                Poll::Ready(Ok(_)) => self.status.mark_activity(),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Box::new(connection_lost(&error))));
                }
                Poll::Pending => {
                    self.shrink();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Ends the session on this side, while the server still runs a statement, and returns the stream.
    pub(super) fn detach(&mut self, cause: ServerError) -> Option<DrainStream> {
        let drain = self.take_stream();
        self.set_lost(cause);
        drain
    }

    /// Takes the stream. Who waits for a response waits on, until [`set_lost`](Self::set_lost) says why there is none.
    pub(super) fn take_stream(&mut self) -> Option<DrainStream> {
        self.channel.take().map(|channel| {
            channel.transport.give_up();
            DrainStream {
                channel,
                input: mem::replace(&mut self.input, Input::new(BytesMut::new())),
                outstanding: self.requests.outstanding_within(self.written),
            }
        })
    }

    /// Notes that the session has ended. A fatal error of the server takes the place of `cause`.
    pub(super) fn set_lost(&mut self, cause: ServerError) {
        let cause = self.status.fatal_error().unwrap_or(cause);
        self.status.end();
        self.channel = None;
        self.input = Input::new(BytesMut::new());
        self.output = BytesMut::new();
        self.held = VecDeque::new();
        self.lost.get_or_insert_with(|| Box::new(cause));
        self.is_wake_due = true;
    }
}

/// How many messages are read at most without waiting.
const READ_BATCH: usize = 256;
