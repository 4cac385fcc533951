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
/// answer is lost, it may have run, and no other attempt has the claim any more. Neither has one if a caller has gone
/// meanwhile, who is not there to learn that its statement has run.
pub(crate) struct Early<T>(Mutex<State<T>>);

struct State<T> {
    /// All that was written, until the login has succeeded.
    written: BytesMut,
    claim: Claim,
    /// How many attempts there were.
    attempts: Attempt,
    /// Whether a caller has gone that had written something.
    is_given_up: bool,
    /// Whether an attempt has ever had the claim.
    is_open: bool,
    /// How the login has ended: with a stream, or without.
    outcome: Option<Option<Opened<T>>>,
    /// The tasks of the attempts, and of whoever waits for one.
    wakers: Vec<Waker>,
    /// The session, which waits for the outcome.
    session: Option<Waker>,
}

/// Numbers the attempts, the earliest first.
type Attempt = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Free,
    /// This attempt is to send what is written, and has sent nothing.
    Held(Attempt),
    /// This attempt has sent so many bytes.
    Sent(Attempt, usize),
    /// The login of the attempt that has sent so many bytes has succeeded.
    Settled(usize),
    /// That attempt has failed, and what it has sent may have run.
    Lost,
    /// A caller has gone, and nothing of what is written has run: nobody sends it.
    Withdrawn,
}

impl Claim {
    /// Returns how many bytes this attempt has sent, if it has the claim.
    fn sent_by(self, attempt: Attempt) -> Option<usize> {
        match self {
            Self::Held(by) if by == attempt => Some(0),
            Self::Sent(by, sent) if by == attempt => Some(sent),
            _ => None,
        }
    }
}

impl<T> Early<T> {
    /// Waits until an attempt lacks nothing but the server's answer.
    pub(crate) async fn until_open(&self) {
        self.until(|state| state.is_open).await;
    }

    /// Waits until no other attempt may send what is written.
    pub(crate) async fn until_over(&self) {
        self.until(|state| matches!(state.claim, Claim::Lost | Claim::Withdrawn))
            .await;
    }

    async fn until(&self, is_so: impl Fn(&State<T>) -> bool) {
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.0);
            if is_so(&state) {
                return Poll::Ready(());
            }
            state.register(cx);
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn is_open(&self) -> bool {
        lock(&self.0).is_open
    }

    /// Returns whether what was sent may have run without an answer.
    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.0).claim == Claim::Lost
    }

    /// Notes that a caller has gone that has written something: only the attempt that has sent it may yet succeed.
    pub(super) fn give_up(&self) {
        self.change(|state| {
            state.is_given_up = true;
            if matches!(state.claim, Claim::Free | Claim::Held(_)) && state.outcome.is_none() {
                state.claim = Claim::Withdrawn;
            }
        });
    }

    /// Returns whether a caller has gone, and nothing of what is written has run.
    pub(crate) fn is_withdrawn(&self) -> bool {
        lock(&self.0).claim == Claim::Withdrawn
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

    /// Takes the claim for an attempt if it can. Pending while two logins with the same statement could both succeed.
    fn poll_claim(&self, cx: &mut Context<'_>, attempt: Attempt) -> Poll<()> {
        let mut state = lock(&self.0);
        match state.claim {
            claim if claim.sent_by(attempt).is_some() => return Poll::Ready(()),
            // One that began earlier, and waits for its answer, may hang.
            Claim::Held(by) if by > attempt => {
                state.register(cx);
                return Poll::Ready(());
            }
            Claim::Free | Claim::Held(_) => state.claim = Claim::Held(attempt),
            Claim::Sent(..) | Claim::Settled(_) | Claim::Lost | Claim::Withdrawn => {
                state.register(cx);
                return Poll::Pending;
            }
        }
        let was_open = std::mem::replace(&mut state.is_open, true);
        drop(state);
        if !was_open {
            self.change(|_| ());
        }
        Poll::Ready(())
    }
}

impl<T> Default for Early<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            written: BytesMut::new(),
            claim: Claim::Free,
            attempts: 0,
            is_given_up: false,
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
    attempt: Attempt,
    step: Step,
    is_unflushed: bool,
    /// Whether writing has failed: nobody knows how much of it has left.
    is_broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The server still needs messages of the login.
    LoggingIn,
    /// The client has sent its last message of the login.
    Due,
    Over,
}

impl<T: AsyncWrite + Unpin> EarlyClaim<T> {
    pub(crate) fn new(early: Arc<Early<T>>) -> Self {
        let attempt = {
            let mut state = lock(&early.0);
            state.attempts += 1;
            state.attempts
        };
        Self {
            early,
            attempt,
            step: Step::LoggingIn,
            is_unflushed: false,
            is_broken: false,
        }
    }

    /// Notes that the client has written its last message of the login.
    pub(crate) fn set_due(&mut self) {
        if self.step == Step::LoggingIn {
            self.step = Step::Due;
        }
    }

    /// Sends what is written by now, if the attempt has the claim. Pending while another attempt has sent it: two logins
    /// with the same statement could both succeed. An error is left to reading, which comes to an end too, and may find
    /// the server's reason.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, transport: &mut T) -> Poll<()> {
        if self.step != Step::Due {
            return Poll::Ready(());
        }
        ready!(self.early.poll_claim(cx, self.attempt));
        let mut state = lock(&self.early.0);
        while let Some(sent) = state.claim.sent_by(self.attempt) {
            if self.is_broken {
                break;
            }
            let rest = &state.written[sent..];
            if rest.is_empty() {
                state.register(cx);
                break;
            }
            match Pin::new(&mut *transport).poll_write(cx, rest) {
                Poll::Ready(Ok(written @ 1..)) => {
                    state.claim = Claim::Sent(self.attempt, sent + written);
                    self.is_unflushed = true;
                }
                Poll::Ready(_) => {
                    state.claim = Claim::Sent(self.attempt, sent);
                    self.is_broken = true;
                }
                Poll::Pending => break,
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
        self.step = Step::Over;
        let attempt = self.attempt;
        self.early.change(|state| {
            if state.claim.sent_by(attempt).is_some() {
                state.claim = match state.is_given_up {
                    true => Claim::Withdrawn,
                    false => Claim::Free,
                };
            }
        });
    }

    /// Notes that the login has succeeded. Returns false if what is written belongs to another attempt.
    pub(crate) fn settle(&mut self) -> bool {
        self.step = Step::Over;
        let (attempt, is_broken) = (self.attempt, self.is_broken);
        self.early.change(|state| {
            let sent = match state.claim {
                Claim::Sent(by, sent) if by == attempt && !is_broken => sent,
                // Nobody has sent anything, or a server that asks for nothing is ready at once.
                Claim::Free | Claim::Held(_) => 0,
                _ => return false,
            };
            state.claim = Claim::Settled(sent);
            state.is_open = true;
            true
        })
    }
}

impl<T> Drop for EarlyClaim<T> {
    /// Gives the claim back if nothing was sent. Otherwise, nobody knows whether it has run.
    fn drop(&mut self) {
        let attempt = self.attempt;
        self.early.change(|state| {
            state.claim = match state.claim {
                Claim::Held(by) if by == attempt => Claim::Free,
                Claim::Sent(by, _) if by == attempt => Claim::Lost,
                claim => claim,
            };
        });
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
