//! [`Response`]: the response to one request, and how a request is sent.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::error::Failure;
use super::handle::SessionHandle;
use super::preamble::{Command, Preamble, SentPreamble, failed_begin, prefix};
use super::response_timeout::ResponseTimer;
use super::stall::Stall;
use super::waiters::Waiting;
use crate::protocol::{Malformed, Message, Messages, Request, ServerError, tag};
use crate::util::effects::Effects;

/// The response to one request, message by message. Abandoned if it is dropped before it is complete.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    handle: &'a Arc<SessionHandle>,
    waiting: Waiting<'a>,
    id: u64,
    /// The commands that rode in front of the request.
    preamble: Vec<Command>,
    /// How many characters of the preamble stand in front of the caller's SQL, in one text.
    prefix_len: usize,
    /// Whether the caller has its result, and can do without the rest.
    is_satisfied: bool,
    is_complete: bool,
    stall: Stall,
    timer: ResponseTimer,
}

impl SessionHandle {
    /// Sends a request. The commands of [`push_preamble`](Self::push_preamble) ride in front of it, in the same group.
    ///
    /// The request is borrowed: each future that it moved through would have room for it.
    pub(crate) async fn send<'a>(
        self: &'a Arc<Self>,
        request: &Request,
    ) -> Result<Response<'a>, Failure> {
        self.send_with(request, true).await
    }

    /// Sends a request without the preamble: it runs before a transaction that is yet to begin.
    pub(crate) async fn send_without_preamble<'a>(
        self: &'a Arc<Self>,
        request: &Request,
    ) -> Result<Response<'a>, Failure> {
        self.send_with(request, false).await
    }

    async fn send_with<'a>(
        self: &'a Arc<Self>,
        request: &Request,
        with_preamble: bool,
    ) -> Result<Response<'a>, Failure> {
        let mut waiting = Waiting::new(self.waiters());
        let (mut stall, mut timer) = (Stall::default(), ResponseTimer::default());
        let effects = effects(request);
        let send = poll_fn(|cx| {
            let sent = self.poll_send(cx, &mut waiting, request, effects, with_preamble);
            if sent.is_pending() {
                let failed = self.poll_wait(cx, waiting.stalled, &mut stall, &mut timer);
                return failed.map(Err);
            }
            sent
        });
        let (id, preamble) = send.await?;
        let prefix_len = match request {
            Request::Extended(_) => 0,
            Request::Simple(_) | Request::Copy(_) => prefix(&preamble).chars().count(),
        };
        Ok(Response::new(self, waiting, id, preamble, prefix_len))
    }

    /// Resolves once there is no point in waiting any longer for what has not arrived.
    fn poll_wait(
        &self,
        cx: &mut Context<'_>,
        stalled: Option<u64>,
        stall: &mut Stall,
        timer: &mut ResponseTimer,
    ) -> Poll<Failure> {
        if stall.poll(cx, self.canceller(), stalled).is_ready() {
            return Poll::Ready(Failure::Unread);
        }
        if stalled.is_some() {
            // Nothing is read, so that the server cannot be heard.
            timer.end();
            return Poll::Pending;
        }
        self.poll_response_timeout(cx, timer)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        request: &Request,
        effects: Effects,
        with_preamble: bool,
    ) -> Poll<Result<(u64, Vec<Command>), Failure>> {
        let mut pipeline = self.lock();
        if !pipeline.requests.is_outstanding() && !self.waiters().is_exhausted() {
            // A session that has ended meanwhile is to be reported before anything is sent: then a retry is safe.
            pipeline.read_available();
        }
        loop {
            if self.status().has_abandoned_transaction() {
                return Poll::Ready(Err(Failure::Abandoned));
            }
            if let Some(lost) = &pipeline.lost {
                return Poll::Ready(Err(Failure::Lost(lost.clone())));
            }
            if with_preamble && matches!(pipeline.preamble, Preamble::Failed) {
                return Poll::Ready(Err(Failure::Server(Box::new(failed_begin()))));
            }
            if !pipeline.is_cancelling() && !pipeline.requests.is_blocked() {
                break;
            }
            waiting.register(cx);
            waiting.stalled = pipeline.requests.stalled(None);
            ready!(pipeline.pump());
        }
        if self.status().schema.outdates(request) {
            return Poll::Ready(Err(Failure::Outdated));
        }
        waiting.is_held_back = pipeline.requests.outstanding_len() > 1;
        let submitted = pipeline.submit(request, effects, with_preamble);
        if effects.changes_schema && submitted.is_ok() {
            self.status().schema.note_sent(self.status().requests());
        }
        Poll::Ready(submitted.map_err(Failure::Unsendable))
    }
}

/// Returns what a request may do; of statements in groups, whoever sends them has noted the rest.
fn effects(request: &Request) -> Effects {
    match request {
        Request::Extended(group) => Effects {
            changes_schema: group.may_change_schema,
            ..Effects::default()
        },
        Request::Simple(sql) | Request::Copy(sql) => Effects::of_several(sql),
    }
}

impl<'a> Response<'a> {
    pub(super) fn new(
        handle: &'a Arc<SessionHandle>,
        waiting: Waiting<'a>,
        id: u64,
        preamble: Vec<Command>,
        prefix_len: usize,
    ) -> Self {
        Self {
            handle,
            waiting,
            id,
            preamble,
            prefix_len,
            is_satisfied: false,
            is_complete: false,
            stall: Stall::default(),
            timer: ResponseTimer::default(),
        }
    }

    /// Polls for the next message; ReadyForQuery is the last.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Failure>> {
        let message = self.handle.poll_message(cx, &mut self.waiting, self.id);
        let Poll::Ready(message) = message else {
            if self.handle.status().identity.take_interrupted() {
                // The cancel request was meant for the statement.
                self.handle.cancel_rest();
            }
            let stalled = self.waiting.stalled;
            let (stall, timer) = (&mut self.stall, &mut self.timer);
            let failed = self.handle.poll_wait(cx, stalled, stall, timer);
            self.is_complete = matches!(failed, Poll::Ready(Failure::Lost(_)));
            return failed.map(Err);
        };
        self.timer.end();
        self.is_complete = match &message {
            Ok(message) => message.tag == tag::READY_FOR_QUERY,
            Err(_) => true,
        };
        Poll::Ready(message)
    }

    /// Waits for the next message; ReadyForQuery is the last.
    pub(crate) async fn message(&mut self) -> Result<Message, Failure> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Takes the commands that rode in front of the request.
    pub(crate) fn take_preamble(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.preamble)
    }

    /// As [`take_preamble`](Self::take_preamble), with the request that they rode in front of.
    pub(crate) fn take_sent_preamble(&mut self) -> SentPreamble {
        SentPreamble {
            request: self.id,
            commands: self.take_preamble(),
        }
    }

    /// Parses an ErrorResponse; its position is one in the caller's SQL.
    pub(crate) fn error(&self, body: &[u8]) -> ServerError {
        ServerError::parse(body).behind(self.prefix_len)
    }

    /// Writes data of a COPY behind the head of its message, and waits while too much is unwritten.
    pub(crate) async fn stream(&mut self, head: &Messages, data: &[u8]) -> Result<(), Failure> {
        self.handle.stream(self.id, head, data).await
    }

    /// Ends the data of a COPY, unless the server has ended the COPY.
    pub(crate) fn end_copy(&self, messages: &Messages) {
        self.handle.end_copy(self.id, messages);
    }

    /// Notes that the caller has its result, and can do without the rest.
    pub(crate) fn set_satisfied(&mut self) {
        self.is_satisfied = true;
    }

    /// Ends the session because a message of the response is malformed.
    pub(crate) fn set_lost(&self, malformed: Malformed) -> Failure {
        self.handle.set_lost(malformed)
    }

    /// Reads the rest, and returns `error` as the result of the request, whatever follows.
    ///
    /// The future is boxed, so that the futures of statements that succeed stay small.
    pub(crate) fn fail(self, error: ServerError) -> BoxFuture<'a, Failure> {
        Box::pin(async move {
            match self.rest().await {
                Ok(_) => Failure::Server(Box::new(error)),
                // The loss of the session carries the fatal error.
                Err(lost) => lost,
            }
        })
    }

    /// Reads the rest, and returns its ReadyForQuery. Boxed as [`fail`](Self::fail) is.
    pub(crate) fn rest(mut self) -> BoxFuture<'a, Result<Message, Failure>> {
        Box::pin(async move {
            loop {
                let message = self.message().await?;
                if message.tag == tag::READY_FOR_QUERY {
                    return Ok(message);
                }
            }
        })
    }
}

impl Drop for Response<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.handle.abandon(self.id, self.is_satisfied);
        }
    }
}
