//! The Postgres protocol below Diesel.
//!
//! tokio-postgres makes every session: TLS, SCRAM, cold start. It does so over a [`Wire`], which knows
//! what that driver does not tell: whether a transaction is open, whether an answer is outstanding, and
//! what the server's last words were. Once the session is there, either tokio-postgres stays (for
//! [`AsyncPgConnection`](diesel_async::AsyncPgConnection)), or a [`Link`] takes the stream over and
//! speaks the protocol itself (for [`Connection`](crate::Connection)): only then does no named statement
//! leave by accident, and only then can BEGIN ride in front of a statement.

mod answer;
mod cancelling;
mod engine;
mod error;
mod exchange;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod input;
mod link;
mod login;
mod message;
mod observed;
mod opening;
mod remains;
mod request;
mod route;
mod settle;
mod stall;
mod unfinished;
mod waiters;

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_util::task::task_tracker::TaskTrackerToken;

pub(crate) use self::answer::Answer;
pub(crate) use self::error::{Failure, ServerError};
use self::frames::Frames;
pub(crate) use self::link::Link;
use self::login::Login;
pub(crate) use self::message::{Column, Fields, Malformed, Message, affected, columns, tag};
pub(crate) use self::observed::Observed;
pub(crate) use self::opening::Command;
pub(crate) use self::request::{Messages, Request};
pub(crate) use self::unfinished::Watch;
use crate::transport::{Progress, Stage, Transport};

/// Watches the Postgres messages that pass through, and changes none.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Gone once it is handed over.
    channel: Option<Channel>,
    frontend: Frames,
    backend: Frames,
    observed: Arc<Observed>,
    login: Login,
    progress: Arc<Progress>,
    handover: Arc<Handover>,
    /// Read, but not passed on.
    held: BytesMut,
}

/// A stream to the server.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) transport: Transport,
    /// Held as long as the socket is open, so that closing a pool can wait for it.
    pub(crate) _open: TaskTrackerToken,
}

/// Where a [`Wire`] leaves its stream for whoever takes it over once the session is there.
#[derive(Debug)]
pub(crate) struct Handover {
    /// While set, nothing behind the last ReadyForQuery that tokio-postgres is to see is passed on, and a
    /// dropped wire leaves its stream here.
    holding: AtomicBool,
    /// How many ReadyForQuery tokio-postgres is to see.
    answers: u64,
    left: Mutex<Option<(Channel, BytesMut)>>,
}

impl Handover {
    /// Holds the stream once tokio-postgres has seen so many ReadyForQuery: one ends the login, and each
    /// question of its own takes one more.
    pub(crate) fn after(answers: u64) -> Self {
        Self {
            holding: AtomicBool::new(true),
            answers,
            left: Mutex::new(None),
        }
    }

    /// The stream stays where it is.
    pub(crate) fn decline(&self) {
        self.holding.store(false, Ordering::Release);
    }

    /// The stream of a wire that has been dropped, and what was read of it but not passed on.
    pub(crate) fn take(&self) -> Option<(Channel, BytesMut)> {
        let left = self.left.lock();
        left.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Acquire)
    }
}

impl Drop for Handover {
    /// Says goodbye on a stream that nobody has taken: that of a login that lost a race or was given up.
    fn drop(&mut self) {
        if let Some((mut channel, _)) = self.take() {
            let mut goodbye = Messages::default();
            goodbye.terminate();
            channel.transport.close_with(goodbye.as_bytes());
        }
    }
}

impl Wire {
    pub(crate) fn new(
        channel: Channel,
        observed: Arc<Observed>,
        progress: Arc<Progress>,
        handover: Arc<Handover>,
    ) -> Self {
        Self {
            channel: Some(channel),
            frontend: Frames::frontend(),
            backend: Frames::backend(|tag| matches!(tag, b'C' | b'E' | b'K' | b'R' | b'S' | b'Z')),
            observed,
            login: Login::default(),
            progress,
            handover,
            held: BytesMut::new(),
        }
    }

    fn transport(&mut self) -> io::Result<Pin<&mut Transport>> {
        match &mut self.channel {
            Some(channel) => Ok(Pin::new(&mut channel.transport)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let holding = this.handover.is_holding();
        let before = buf.filled().len();
        let result = if this.held.is_empty() {
            let had_room = buf.remaining() > 0;
            let result = ready!(this.transport()?.poll_read(cx, buf));
            if result.is_err() || (buf.filled().len() == before && had_room) {
                this.observed.end();
            }
            this.observed.hear();
            result
        } else if holding {
            // Whoever takes over reads on; until then there is nobody to wake.
            return Poll::Pending;
        } else {
            let now = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..now]);
            this.held.advance(now);
            Ok(())
        };
        let (observed, login) = (&this.observed, &mut this.login);
        let new = &buf.filled()[before..];
        let left = this.backend.advance(new, |tag, body| {
            if let Some(cold) = login.received(tag) {
                observed.woke(cold);
            }
            observed.received(tag, body);
            match tag {
                b'R' if is_last_question(body) => this.progress.reach(Stage::Waking),
                b'Z' if holding && observed.answers() >= this.handover.answers => {
                    return ControlFlow::Break(());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        let passed = buf.filled().len() - left;
        this.held.extend_from_slice(&buf.filled()[passed..]);
        buf.set_filled(passed);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = ready!(this.transport()?.poll_write(cx, buf));
        match &result {
            Ok(written) => {
                let (observed, login) = (&this.observed, &mut this.login);
                this.frontend.advance(&buf[..*written], |tag, _| {
                    login.sent(tag);
                    observed.sent(tag);
                    ControlFlow::Continue(())
                });
            }
            Err(_) => this.observed.end(),
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport()?.poll_shutdown(cx)
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.channel {
            Some(channel) => channel.transport.channel_binding(),
            None => ChannelBinding::none(),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.handover.is_holding() {
            let left = self.handover.left.lock();
            let mut left = left.unwrap_or_else(PoisonError::into_inner);
            let held = std::mem::take(&mut self.held);
            // Before the password the protocol knows no goodbye.
            if self.progress.stage() == Stage::Waking && !self.observed.has_ended() {
                *left = self.channel.take().map(|channel| (channel, held));
            }
        } else {
            self.observed.end();
        }
    }
}

/// Whether the server wants no more than the answer to this AuthenticationRequest, if that much: a password,
/// the proof of SCRAM, or nothing.
fn is_last_question(body: &[u8]) -> bool {
    const OK: i32 = 0;
    const CLEARTEXT: i32 = 3;
    const MD5: i32 = 5;
    const SASL_CONTINUE: i32 = 11;
    let kind = body.first_chunk().copied().map(i32::from_be_bytes);
    matches!(kind, Some(OK | CLEARTEXT | MD5 | SASL_CONTINUE))
}
