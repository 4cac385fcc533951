//! [`Response`]: what the server says to one request.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::error::Failure;
use super::handle::SessionHandle;
use super::preamble::{Command, Preamble, in_front, refusal};
use super::silence::Silence;
use super::stall::Stall;
use super::waiters::Waiting;
use crate::protocol::{Message, Messages, Request, ServerError, tag};

/// The answer to one request, message by message.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    handle: &'a Arc<SessionHandle>,
    waiting: Waiting<'a>,
    id: u64,
    /// What rode in front of the request.
    begun: Vec<Command>,
    /// How many characters of that are in front of the request's own, in one text.
    ahead: usize,
    /// Set once the caller has its result and only the rest is outstanding.
    tail: bool,
    complete: bool,
    stall: Stall,
    silence: Silence,
}

impl SessionHandle {
    /// Sends a request; the commands of [`open`](Self::open) ride in front of it, in the same group.
    pub(crate) async fn send(self: &Arc<Self>, request: Request) -> Result<Response<'_>, Failure> {
        self.send_with(request, true).await
    }

    /// Sends a request that may run before a transaction that is only to be opened.
    pub(crate) async fn send_ahead(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Response<'_>, Failure> {
        self.send_with(request, false).await
    }

    async fn send_with(
        self: &Arc<Self>,
        request: Request,
        opens: bool,
    ) -> Result<Response<'_>, Failure> {
        let mut waiting = Waiting::new(self.waiters());
        let (mut stall, mut silence) = (Stall::default(), Silence::default());
        let send = poll_fn(|cx| {
            let sent = self.poll_send(cx, &mut waiting, &request, opens);
            if sent.is_pending() {
                let failed = self.poll_wait(cx, waiting.stalled, &mut stall, &mut silence);
                return failed.map(Err);
            }
            sent
        });
        let (id, begun) = send.await?;
        let ahead = match &request {
            Request::Extended(_) => 0,
            Request::Simple(_) | Request::Copy(_) => in_front(&begun).chars().count(),
        };
        Ok(Response::new(self, waiting, id, begun, ahead))
    }

    /// Resolves once there is no point in waiting any longer for what has not arrived.
    fn poll_wait(
        &self,
        cx: &mut Context<'_>,
        stalled: Option<u64>,
        stall: &mut Stall,
        silence: &mut Silence,
    ) -> Poll<Failure> {
        if stall.poll(cx, self.canceller(), stalled).is_ready() {
            return Poll::Ready(Failure::Unread);
        }
        if stalled.is_some() {
            // Nothing is read, so that the server cannot be heard.
            silence.end();
            return Poll::Pending;
        }
        self.poll_silence(cx, silence)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        request: &Request,
        opens: bool,
    ) -> Poll<Result<(u64, Vec<Command>), Failure>> {
        let mut pipeline = self.lock();
        if !pipeline.requests.is_outstanding() && !self.waiters().is_quiet() {
            // What has ended in the meantime is told before anything is sent: then it can be done again.
            pipeline.drain();
        }
        loop {
            if self.status().has_abandoned_transaction() {
                return Poll::Ready(Err(Failure::Abandoned));
            }
            if let Some(lost) = &pipeline.lost {
                return Poll::Ready(Err(Failure::Lost(lost.clone())));
            }
            if opens && matches!(pipeline.preamble, Preamble::Refused) {
                return Poll::Ready(Err(Failure::Server(Box::new(refusal()))));
            }
            // Behind a BEGIN that fails, this would run without a transaction; behind a statement that was given
            // up, perhaps in one. A cancel request that is under way would stop it. And PgBouncer loses count
            // of the answers where anything follows a COPY before its end.
            let requests = &pipeline.requests;
            let waits = requests.has_unconfirmed_preamble()
                || requests.is_copying()
                || requests.is_abandoned();
            if !waits && pipeline.cancels == 0 {
                break;
            }
            waiting.register(cx);
            waiting.stalled = pipeline.requests.stalled(None);
            ready!(pipeline.pump());
        }
        Poll::Ready(pipeline.submit(request, opens).map_err(Failure::Unsendable))
    }
}

impl<'a> Response<'a> {
    pub(super) fn new(
        handle: &'a Arc<SessionHandle>,
        waiting: Waiting<'a>,
        id: u64,
        begun: Vec<Command>,
        ahead: usize,
    ) -> Self {
        Self {
            handle,
            waiting,
            id,
            begun,
            ahead,
            tail: false,
            complete: false,
            stall: Stall::default(),
            silence: Silence::default(),
        }
    }

    /// The next message; ReadyForQuery is the last.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Failure>> {
        let message = self.handle.poll_message(cx, &mut self.waiting, self.id);
        let Poll::Ready(message) = message else {
            let stalled = self.waiting.stalled;
            let (stall, silence) = (&mut self.stall, &mut self.silence);
            let failed = self.handle.poll_wait(cx, stalled, stall, silence);
            self.complete = matches!(failed, Poll::Ready(Failure::Lost(_)));
            return failed.map(Err);
        };
        self.silence.end();
        self.complete = match &message {
            Ok(message) => message.tag == tag::READY_FOR_QUERY,
            Err(_) => true,
        };
        Poll::Ready(message)
    }

    pub(crate) async fn message(&mut self) -> Result<Message, Failure> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// What rode in front of the request.
    pub(crate) fn begun(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.begun)
    }

    /// An ErrorResponse to the request, whose position is one in the caller's SQL.
    pub(crate) fn error(&self, body: &[u8]) -> ServerError {
        ServerError::parse(body).behind(self.ahead)
    }

    /// Writes data of a COPY, at the stream's own pace.
    pub(crate) async fn stream(&mut self, messages: &Messages) -> Result<(), Failure> {
        self.handle.stream(self.id, messages).await
    }

    /// Writes data of a COPY, or its end, unless it has come to an end by itself.
    pub(crate) fn push(&self, messages: &Messages) {
        self.handle.push(self.id, messages);
    }

    /// From here on the caller can do without the rest.
    pub(crate) fn is_tail(&mut self) {
        self.tail = true;
    }

    /// Reads on to the end. An error that was read already is the answer, whatever follows.
    ///
    /// In a box, so that what succeeds has no need of the room.
    pub(crate) fn fail(mut self, error: ServerError) -> BoxFuture<'a, Failure> {
        Box::pin(async move {
            while !self.complete {
                if let Err(lost) = self.message().await {
                    // Of a fatal error the session's end has the words.
                    return lost;
                }
            }
            Failure::Server(Box::new(error))
        })
    }
}

impl Drop for Response<'_> {
    fn drop(&mut self) {
        if !self.complete {
            self.handle.abandon(self.id, self.tail);
        }
    }
}
