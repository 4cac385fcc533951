//! [`Pipeline`]: what a handle's lock protects. Reads, writes, and hands on; waits for nothing itself.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::channel::Channel;
use super::drain::DrainStream;
use super::input::{CHUNK, Input};
use super::pending::{Owner, PendingRequest, PendingRequests};
use super::preamble::{Command, Preamble, in_front, is_begin};
use super::status::SessionStatus;
use super::waiters::Waiters;
use crate::protocol::{Message, Messages, Next, Request, ServerError, Unsendable, tag};

pub(super) struct Pipeline {
    pub(super) channel: Option<Channel>,
    /// Wakes everyone who waits: whoever polled last may be gone when the stream wakes.
    waker: Waker,
    pub(super) waiters: Arc<Waiters>,
    pub(super) status: Arc<SessionStatus>,
    input: Input,
    pub(super) output: BytesMut,
    unflushed: bool,
    /// How many bytes have left.
    written: u64,
    pub(super) requests: PendingRequests,
    pub(super) next_id: u64,
    pub(super) preamble: Preamble,
    pub(super) notifications: VecDeque<diesel::pg::PgNotification>,
    pub(super) abandoning: bool,
    /// Cancel requests that may be under way.
    pub(super) cancels: u32,
    pub(super) lost: Option<Box<ServerError>>,
}

impl Pipeline {
    pub(super) fn new(
        channel: Channel,
        read: BytesMut,
        status: Arc<SessionStatus>,
        waiters: Arc<Waiters>,
    ) -> Self {
        Self {
            channel: Some(channel),
            waker: Waker::from(Arc::clone(&waiters)),
            waiters,
            status,
            input: Input::new(read),
            output: BytesMut::new(),
            unflushed: false,
            written: 0,
            requests: PendingRequests::default(),
            next_id: 0,
            preamble: Preamble::Nothing,
            notifications: VecDeque::new(),
            abandoning: false,
            cancels: 0,
            lost: None,
        }
    }

    pub(super) fn submit(
        &mut self,
        request: &Request,
        opens: bool,
    ) -> Result<(u64, Vec<Command>), Unsendable> {
        let commands = match opens {
            true => self.preamble.pending(),
            false => &[],
        };
        let mut messages = Messages::default();
        let mut savepoints = None;
        let (simple, single) = match request {
            Request::Extended(body) => {
                for command in commands {
                    messages.command(command)?;
                }
                let len = messages.as_bytes().len() + body.as_bytes().len();
                self.output.reserve(len);
                self.output.extend_from_slice(messages.as_bytes());
                self.output.extend_from_slice(body.as_bytes());
                self.status.sent(tag::frontend::SYNC);
                (false, true)
            }
            Request::Simple(sql) | Request::Copy(sql) => {
                self.status.sends(sql, true);
                match commands {
                    [] => messages.query(sql)?,
                    _ if commands.iter().any(is_begin) => {
                        messages.query(&(in_front(commands) + sql))?;
                    }
                    _ => {
                        messages.query(sql)?;
                        savepoints = Some(in_front(commands));
                    }
                }
                if let Some(savepoints) = &savepoints {
                    // Where they fail the transaction has failed, and the request says so.
                    self.submit_unheard(savepoints)?;
                }
                self.output.extend_from_slice(messages.as_bytes());
                self.status.sent(tag::frontend::QUERY);
                (true, !sql.trim_end().trim_end_matches(';').contains(';'))
            }
        };
        let begun = match (opens, savepoints) {
            (true, None) => self.preamble.take(),
            (true, Some(_)) => {
                self.preamble.take();
                Vec::new()
            }
            (false, _) => Vec::new(),
        };
        let id = self.push(PendingRequest {
            preamble: begun.len(),
            begins: begun.iter().rposition(is_begin).map_or(0, |at| at + 1),
            simple,
            single,
            copies: matches!(request, Request::Copy(_)),
            ..PendingRequest::of(Owner::Waiting)
        });
        // Whoever waits for the answer writes it, in one with what is submitted meanwhile.
        Ok((id, begun))
    }

    /// Sends SQL whose answer nobody waits for.
    fn submit_unheard(&mut self, sql: &str) -> Result<(), Unsendable> {
        let mut messages = Messages::default();
        messages.query(sql)?;
        self.output.extend_from_slice(messages.as_bytes());
        self.status.sent(tag::frontend::QUERY);
        self.push(PendingRequest {
            simple: true,
            ..PendingRequest::of(Owner::Satisfied)
        });
        Ok(())
    }

    /// Notes a request that ends with what is to be written.
    fn push(&mut self, request: PendingRequest) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.requests.push(PendingRequest {
            id,
            end: self.written + self.output.len() as u64,
            ..request
        });
        id
    }

    /// Sends a request that fails, behind a COPY that has failed.
    ///
    /// The server ignores what still comes of the COPY, but a pooler that has taken the server back by then lends
    /// one for it and keeps it lent until there is an answer. A PgBouncer that tracks statements expects one to
    /// CopyDone and CopyFail as well, unless it has its pull request 1471, and stops only at a group that fails.
    pub(super) fn answer_for_stray_data(&mut self) -> Result<(), Box<ServerError>> {
        let mut messages = Messages::default();
        messages.fail();
        messages.sync();
        self.output.extend_from_slice(messages.as_bytes());
        self.status.sent(tag::frontend::SYNC);
        self.push(PendingRequest::of(Owner::Satisfied));
        self.write()
    }

    /// Reads one message and keeps it for whom it is for. Ready while there is something to do.
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

    /// Reads what is there, but not for as long as a server can go on sending.
    pub(super) fn drain(&mut self) {
        for _ in 0..DRAIN {
            if self.pump().is_pending() {
                return;
            }
        }
    }

    /// As [`pump`](Self::pump), but returns what is for `id`.
    pub(super) fn pump_for(&mut self, id: u64) -> Poll<Option<Message>> {
        if self.requests.stalled(Some(id)).is_some() {
            self.write_only();
            return Poll::Pending;
        }
        let Some((index, message)) = ready!(self.read()) else {
            return Poll::Ready(None);
        };
        let request = &self.requests[index];
        if request.id != id {
            self.keep(index, message);
            return Poll::Ready(None);
        }
        if request.answered {
            self.requests.remove(index);
            if self.requests.is_outstanding() {
                // Those behind may have looked while this was in front of them, and what has been
                // read already wakes nobody.
                self.waiters.set_due();
            }
        }
        Poll::Ready(Some(message))
    }

    fn keep(&mut self, index: usize, message: Message) {
        let request = &self.requests[index];
        match request.owner {
            Owner::Waiting => self.requests.keep(index, message),
            _ if request.answered => {
                self.requests.remove(index);
            }
            _ => {}
        }
        self.waiters.set_due();
    }

    /// Reads one message. None where it was for nobody, or where the session has ended.
    fn read(&mut self) -> Poll<Option<(usize, Message)>> {
        let routed = match ready!(self.poll_next()) {
            Ok(Some(message)) => {
                let ready = message.tag == tag::READY_FOR_QUERY;
                let routed = self.route(message);
                if ready {
                    self.retire_for_cancel();
                }
                routed.map_err(|words| *words)
            }
            Ok(None) => Ok(None),
            Err(words) => Err(words),
        };
        Poll::Ready(routed.unwrap_or_else(|words| {
            self.lose(words);
            None
        }))
    }

    /// The next message, after what is to be written. None where there is no stream any more.
    fn poll_next(&mut self) -> Poll<Result<Option<Message>, ServerError>> {
        if let Err(words) = self.write() {
            return Poll::Ready(Err(*words));
        }
        let Some(channel) = &mut self.channel else {
            return Poll::Ready(Ok(None));
        };
        loop {
            let missing = match self.input.next()? {
                Next::Message(message) => return Poll::Ready(Ok(Some(message))),
                Next::Missing(missing) => missing,
            };
            let mut cx = Context::from_waker(&self.waker);
            let transport = Pin::new(&mut channel.transport);
            // Before reading, or a wake in between would be lost.
            self.waiters.set_quiet(true);
            let filled = self.input.poll_fill(&mut cx, transport, missing);
            if filled.is_ready() {
                self.waiters.set_quiet(false);
            }
            match filled {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(closed())),
                Poll::Ready(Ok(_)) => self.status.mark_activity(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost_words(&error))),
                Poll::Pending => {
                    self.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes what there is room for. A server that has closed its end may have said why: reading tells, and
    /// comes to an end for certain.
    pub(super) fn write(&mut self) -> Result<(), Box<ServerError>> {
        let Err(error) = self.try_write() else {
            return Ok(());
        };
        self.output = BytesMut::new();
        self.unflushed = false;
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Ok(()),
            _ => Err(Box::new(lost_words(&error))),
        }
    }

    /// Where there is no room for what could be read.
    fn write_only(&mut self) {
        if let Err(words) = self.write() {
            self.lose(*words);
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        if self.output.is_empty() && !self.unflushed {
            return Ok(());
        }
        let mut cx = Context::from_waker(&self.waker);
        let mut transport = Pin::new(&mut channel.transport);
        while !self.output.is_empty() {
            match transport.as_mut().poll_write(&mut cx, &self.output)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.output.advance(written);
                    self.written += written as u64;
                    self.unflushed = true;
                }
                Poll::Pending => return Ok(()),
            }
        }
        // TLS may hold back what it has taken.
        self.unflushed = transport.poll_flush(&mut cx)?.is_pending();
        Ok(())
    }

    /// Gives memory back that only a large request or answer needed.
    fn rest(&mut self) {
        self.input.rest();
        if self.output.is_empty() && self.output.capacity() > 2 * CHUNK {
            self.output = BytesMut::new();
        }
    }

    /// Ends the session on this side, where the server is still at work.
    pub(super) fn give_up(&mut self, words: ServerError) -> Option<DrainStream> {
        let remains = self.channel.take().map(|channel| DrainStream {
            channel,
            input: mem::replace(&mut self.input, Input::new(BytesMut::new())),
            owed: self.requests.owed(self.written),
        });
        self.lose(words);
        remains
    }

    pub(super) fn lose(&mut self, words: ServerError) {
        let words = self.status.fatal_error().unwrap_or(words);
        self.status.end();
        self.channel = None;
        self.input = Input::new(BytesMut::new());
        self.output = BytesMut::new();
        self.lost.get_or_insert_with(|| Box::new(words));
        self.waiters.set_due();
    }
}

/// How many messages are read at most where nobody waits for them.
const DRAIN: usize = 256;

fn lost_words(error: &io::Error) -> ServerError {
    match error.kind() {
        // Without TLS's own goodbye, which proxies do not always say.
        io::ErrorKind::UnexpectedEof => closed(),
        _ => ServerError::local("08006", &format!("the connection was lost: {error}")),
    }
}

fn closed() -> ServerError {
    ServerError::local("08006", "the server closed the connection")
}
