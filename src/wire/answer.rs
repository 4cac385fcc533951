//! [`Answer`]: what the server says to one request.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::error::{Failure, ServerError};
use super::link::Link;
use super::message::Message;
use super::opening::Command;
use super::request::Messages;
use super::stall::Stall;
use super::waiters::Waiting;

/// The answer to one request, message by message.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    link: &'a Arc<Link>,
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
}

impl<'a> Answer<'a> {
    pub(super) fn new(
        link: &'a Arc<Link>,
        waiting: Waiting<'a>,
        id: u64,
        begun: Vec<Command>,
        ahead: usize,
    ) -> Self {
        Self {
            link,
            waiting,
            id,
            begun,
            ahead,
            tail: false,
            complete: false,
            stall: Stall::default(),
        }
    }

    /// The next message; ReadyForQuery is the last.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Failure>> {
        let message = self.link.poll_message(cx, &mut self.waiting, self.id);
        let Poll::Ready(message) = message else {
            let (link, stalled) = (self.link, self.waiting.stalled);
            ready!(self.stall.poll(cx, link.canceller(), stalled));
            return Poll::Ready(Err(Failure::Unread));
        };
        self.complete = match &message {
            Ok(message) => message.tag == b'Z',
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
    pub(crate) async fn stream(&self, messages: &Messages) -> Result<(), Failure> {
        self.link.stream(self.id, messages).await
    }

    /// Writes data of a COPY, or its end, unless it has come to an end by itself.
    pub(crate) fn push(&self, messages: &Messages) {
        self.link.push(self.id, messages);
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

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if !self.complete {
            self.link.abandon(self.id, self.tail);
        }
    }
}
