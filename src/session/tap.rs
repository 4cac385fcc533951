//! [`LoginTap`]: what passes between tokio-postgres and the server during a login.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::channel::Channel;
use super::handoff::StreamHandoff;
use super::login::{LoginMonitor, is_last_question};
use super::status::SessionStatus;
use crate::protocol::tag::{self, frontend};
use crate::protocol::{FrameScanner, KEPT};
use crate::transport::{Progress, Stage, Transport};

/// Watches the Postgres messages that pass through, and changes none.
#[derive(Debug)]
pub(crate) struct LoginTap {
    /// Gone once it is handed over.
    channel: Option<Channel>,
    frontend: FrameScanner,
    backend: FrameScanner,
    status: Arc<SessionStatus>,
    login: LoginMonitor,
    progress: Arc<Progress>,
    handoff: Arc<StreamHandoff>,
    /// Read, but not passed on.
    held: BytesMut,
}

impl LoginTap {
    pub(crate) fn new(
        channel: Channel,
        status: Arc<SessionStatus>,
        progress: Arc<Progress>,
        handoff: Arc<StreamHandoff>,
    ) -> Self {
        Self {
            channel: Some(channel),
            frontend: FrameScanner::frontend(|tag| {
                matches!(tag, frontend::QUERY | frontend::PARSE)
            }),
            backend: FrameScanner::backend(|tag| {
                matches!(
                    tag,
                    tag::COMMAND_COMPLETE
                        | tag::ERROR_RESPONSE
                        | tag::BACKEND_KEY_DATA
                        | tag::AUTHENTICATION
                        | tag::PARAMETER_STATUS
                        | tag::READY_FOR_QUERY
                )
            }),
            status,
            login: LoginMonitor::default(),
            progress,
            handoff,
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

impl AsyncRead for LoginTap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let holding = this.handoff.is_holding();
        let before = buf.filled().len();
        let result = if this.held.is_empty() {
            let had_room = buf.remaining() > 0;
            let result = ready!(this.transport()?.poll_read(cx, buf));
            if result.is_err() || (buf.filled().len() == before && had_room) {
                this.status.end();
            }
            this.status.mark_activity();
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
        let (status, login) = (&this.status, &mut this.login);
        let new = &buf.filled()[before..];
        let left = this.backend.advance(new, |tag, body| {
            if let Some(trace) = login.received(tag, body) {
                status.trace_login(trace);
            }
            status.received(tag, body);
            match tag {
                tag::AUTHENTICATION if is_last_question(body) => this.progress.reach(Stage::Waking),
                tag::READY_FOR_QUERY if holding && status.answers() >= this.handoff.answers => {
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

impl AsyncWrite for LoginTap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = ready!(this.transport()?.poll_write(cx, buf));
        match &result {
            Ok(written) => {
                let (status, login) = (&this.status, &mut this.login);
                login.wrote(&buf[..*written]);
                this.frontend.advance(&buf[..*written], |tag, body| {
                    note_sql(status, tag, body);
                    login.sent(tag);
                    status.sent(tag);
                    ControlFlow::Continue(())
                });
            }
            Err(_) => this.status.end(),
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

impl TlsStream for LoginTap {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.channel {
            Some(channel) => channel.transport.channel_binding(),
            None => ChannelBinding::none(),
        }
    }
}

impl Drop for LoginTap {
    fn drop(&mut self) {
        if self.handoff.is_holding() {
            let left = self.handoff.left.lock();
            let mut left = left.unwrap_or_else(PoisonError::into_inner);
            let held = std::mem::take(&mut self.held);
            // Before the password the protocol knows no goodbye.
            if self.progress.stage() == Stage::Waking && !self.status.has_ended() {
                *left = self.channel.take().map(|channel| (channel, held));
            }
        } else {
            self.status.end();
        }
    }
}

/// Notes what tokio-postgres sends that may end a transaction; of a long text the end is not known.
fn note_sql(status: &SessionStatus, tag: u8, body: &[u8]) {
    let mut texts = body.split(|byte| *byte == 0);
    let (sql, several) = match tag {
        frontend::QUERY => (texts.next(), true),
        frontend::PARSE => (texts.nth(1), false),
        _ => return,
    };
    if several && body.len() >= KEPT {
        status.may_end_transaction();
    } else {
        status.sends(&String::from_utf8_lossy(sql.unwrap_or_default()), several);
    }
}
