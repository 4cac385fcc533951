//! [`Early`]: what is written to a session before its login is answered. [`EarlyClaim`]: an attempt's part in it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use crate::util::lock;

/// What is written to a session before its login is answered.
///
/// The attempts to log in share it. One of them at a time has the claim: it sends what is written right behind its own
/// last message. If the server refuses that login, nothing of it has run, and the next attempt sends it again. If the
/// answer is lost, it may have run, and no other attempt has the claim any more.
pub(crate) struct Early<T>(Mutex<State<T>>);

struct State<T> {
    /// All that was written, until the login has succeeded.
    written: BytesMut,
    claim: Claim,
    /// Whether an attempt has ever had the claim.
    is_open: bool,
    /// How the login has ended: with a stream, or without.
    outcome: Option<Option<Opened<T>>>,
    /// The tasks of the attempts, and of whoever waits for one.
    wakers: Vec<Waker>,
    /// The session, which waits for the outcome.
    session: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Free,
    /// An attempt has sent so many bytes.
    Held(usize),
    /// The login of that attempt has succeeded.
    Settled(usize),
    /// That attempt has failed, and what it has sent may have run.
    Lost,
}

impl<T> Early<T> {
    /// Waits until an attempt lacks nothing but the server's answer.
    pub(crate) async fn until_open(&self) {
        self.until(|state| state.is_open).await;
    }

    /// Waits until what was sent may have run without an answer.
    pub(crate) async fn until_lost(&self) {
        self.until(|state| state.claim == Claim::Lost).await;
    }

    async fn until(&self, is_so: impl Fn(&State<T>) -> bool) {
        let ready = |state: &mut State<T>| is_so(state).then_some(());
        std::future::poll_fn(|cx| self.poll(cx, ready)).await;
    }

    pub(crate) fn is_open(&self) -> bool {
        lock(&self.0).is_open
    }

    /// Returns whether what was sent may have run without an answer.
    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.0).claim == Claim::Lost
    }

    /// Hands the stream of the login that has succeeded to the session, with what was `read` of it.
    pub(crate) fn succeed(&self, transport: T, read: BytesMut) {
        self.end(|state| {
            let mut unsent = std::mem::take(&mut state.written);
            if let Claim::Settled(sent) = state.claim {
                unsent.advance(sent);
            }
            Some(Opened {
                transport,
                read,
                unsent,
            })
        });
    }

    /// Ends the session's stream unless the login has succeeded.
    pub(crate) fn fail(&self) {
        self.end(|_| None);
    }

    fn end(&self, outcome: impl FnOnce(&mut State<T>) -> Option<Opened<T>>) {
        let session = self.change(|state| {
            if state.outcome.is_none() {
                state.outcome = Some(outcome(state));
            }
            state.session.take()
        });
        if let Some(session) = session {
            session.wake();
        }
    }

    /// Keeps as much of `bytes` as there is room for, to be sent. Returns `None` if the login has ended.
    pub(super) fn keep(&self, bytes: &[u8]) -> Option<usize> {
        self.change(|state| {
            if state.outcome.is_some() {
                return None;
            }
            let room = MOST_EARLY.saturating_sub(state.written.len());
            let kept = &bytes[..bytes.len().min(room)];
            state.written.extend_from_slice(kept);
            Some(kept.len())
        })
    }

    /// Takes the outcome, once the login has ended: with a stream, or without.
    pub(super) fn take_outcome(&self) -> Option<Option<Opened<T>>> {
        lock(&self.0).outcome.as_mut().map(Option::take)
    }

    /// Has the session woken at the end of the login. Returns false if that was before.
    pub(super) fn register_session(&self, cx: &Context<'_>) -> bool {
        let mut state = lock(&self.0);
        if state.outcome.is_some() {
            return false;
        }
        let before = state.session.replace(cx.waker().clone());
        drop(state);
        drop(before);
        true
    }

    /// Changes the state, and wakes the tasks that wait for a change.
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = lock(&self.0);
        let changed = change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        changed
    }

    /// Polls until `ready` returns something.
    fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&mut State<T>) -> Option<R>,
    ) -> Poll<R> {
        let mut state = lock(&self.0);
        match ready(&mut state) {
            Some(done) => Poll::Ready(done),
            None => {
                state.register(cx);
                Poll::Pending
            }
        }
    }
}

impl<T> Default for Early<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            written: BytesMut::new(),
            claim: Claim::Free,
            is_open: false,
            outcome: None,
            wakers: Vec::new(),
            session: None,
        }))
    }
}

impl<T> State<T> {
    fn register(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }
}

/// Without what is written: it is the caller's SQL.
impl<T> fmt::Debug for Early<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Early").finish_non_exhaustive()
    }
}

/// One attempt's part in an [`Early`].
#[derive(Debug)]
pub(crate) struct EarlyClaim<T> {
    early: Arc<Early<T>>,
    step: Step,
    is_unflushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The server still needs messages of the login.
    LoggingIn,
    /// The client has sent its last message of the login, and waits for the claim.
    Due,
    Held,
    Over,
}

impl<T: AsyncWrite + Unpin> EarlyClaim<T> {
    pub(crate) fn new(early: Arc<Early<T>>) -> Self {
        Self {
            early,
            step: Step::LoggingIn,
            is_unflushed: false,
        }
    }

    /// Notes that the client has written its last message of the login.
    pub(crate) fn set_due(&mut self) {
        if self.step == Step::LoggingIn {
            self.step = Step::Due;
        }
    }

    /// Sends what is written by now. Pending while another attempt has the claim: two logins with the same statement
    /// could both succeed. An error is left to reading, which comes to an end too, and may find the server's reason.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, transport: &mut T) -> Poll<()> {
        if self.step == Step::Due {
            let is_first = !self.early.is_open();
            ready!(self.early.poll(cx, State::take_claim));
            self.step = Step::Held;
            if is_first {
                self.early.change(|state| state.is_open = true);
            }
        }
        if self.step != Step::Held {
            return Poll::Ready(());
        }
        let mut state = lock(&self.early.0);
        while let Claim::Held(sent) = state.claim {
            let rest = &state.written[sent..];
            if rest.is_empty() {
                state.register(cx);
                break;
            }
            match Pin::new(&mut *transport).poll_write(cx, rest) {
                Poll::Ready(Ok(written @ 1..)) => {
                    state.claim = Claim::Held(sent + written);
                    self.is_unflushed = true;
                }
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        drop(state);
        if self.is_unflushed {
            self.is_unflushed = Pin::new(transport).poll_flush(cx).is_pending();
        }
        Poll::Ready(())
    }

    /// Notes that the server has refused the login: nothing that was sent behind it has run.
    pub(crate) fn release(&mut self) {
        if std::mem::replace(&mut self.step, Step::Over) == Step::Held {
            self.early.change(|state| state.claim = Claim::Free);
        }
    }

    /// Notes that the login has succeeded. Returns false if what is written belongs to another attempt.
    pub(crate) fn settle(&mut self) -> bool {
        let is_held = std::mem::replace(&mut self.step, Step::Over) == Step::Held;
        self.early.change(|state| {
            state.claim = match state.claim {
                Claim::Held(sent) if is_held => Claim::Settled(sent),
                // A server that asks for nothing is ready at once.
                Claim::Free if !is_held => Claim::Settled(0),
                _ => return false,
            };
            state.is_open = true;
            true
        })
    }
}

impl<T> State<T> {
    fn take_claim(&mut self) -> Option<()> {
        let is_free = self.claim == Claim::Free;
        is_free.then(|| self.claim = Claim::Held(0))
    }
}

impl<T> Drop for EarlyClaim<T> {
    /// Gives the claim back if nothing was sent. Otherwise, nobody knows whether it has run.
    fn drop(&mut self) {
        if self.step == Step::Held {
            self.early.change(|state| {
                state.claim = match state.claim {
                    Claim::Held(0) => Claim::Free,
                    _ => Claim::Lost,
                };
            });
        }
    }
}

/// The stream of a login that has succeeded, with the bytes that were read of it.
pub(super) struct Opened<T> {
    pub(super) transport: T,
    pub(super) read: BytesMut,
    /// What was written and not sent.
    pub(super) unsent: BytesMut,
}

impl<T: AsyncWrite + Unpin> Opened<T> {
    /// Sends what is not sent yet.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// How many bytes may be written before the login has succeeded: they are kept to be sent again.
const MOST_EARLY: usize = 64 * 1024;

#[cfg(test)]
mod tests;
