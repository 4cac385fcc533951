//! [`LoginTap`]: reads along while tokio-postgres logs in.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::channel::Channel;
use super::early_password::EarlyPassword;
use super::handoff::StreamHandoff;
use super::login::{LoginMonitor, is_last_step};
use super::status::SessionStatus;
use crate::protocol::tag::{self, frontend};
use crate::protocol::{FrameScanner, MAX_PREFIX};
use crate::transport::{EarlyClaim, Progress, Stage, Transport};
use crate::util::effects::Effects;
use crate::util::lock;

/// Reads the messages that pass between tokio-postgres and the server, and changes none.
#[derive(Debug)]
pub(crate) struct LoginTap {
    /// None once the stream is handed over.
    channel: Option<Channel>,
    frontend: FrameScanner,
    backend: FrameScanner,
    status: Arc<SessionStatus>,
    login: LoginMonitor,
    progress: Arc<Progress>,
    handoff: Arc<StreamHandoff>,
    /// The bytes that were read and not passed on.
    withheld: BytesMut,
    /// How many bytes the server has sent.
    received: usize,
    password: EarlyPassword,
    /// What the session is to send behind the login without waiting for its answer.
    early: Option<EarlyClaim>,
}

impl LoginTap {
    pub(crate) fn new(
        channel: Channel,
        status: Arc<SessionStatus>,
        progress: Arc<Progress>,
        handoff: Arc<StreamHandoff>,
        password: EarlyPassword,
        early: Option<EarlyClaim>,
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
            withheld: BytesMut::new(),
            received: 0,
            password,
            early,
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
        if let (Some(early), Some(channel)) = (&mut this.early, &mut this.channel) {
            ready!(early.poll_send(cx, &mut channel.transport));
        }
        let is_holding = this.handoff.is_holding();
        let before = buf.filled().len();
        let result = if this.withheld.is_empty() {
            let had_room = buf.remaining() > 0;
            let polled = this.transport()?.poll_read(cx, buf);
            this.status.set_awaited(polled.is_pending());
            let result = ready!(polled);
            if let (Err(error), Some(early)) = (&result, &mut this.early) {
                if is_refused(error) && !this.status.login().is_authenticated {
                    early.release();
                }
            }
            if result.is_err() || (buf.filled().len() == before && had_room) {
                this.status.end();
            }
            this.status.mark_activity();
            result
        } else if is_holding {
            // The session handle that takes the stream over reads on; until then nobody is to be woken.
            return Poll::Pending;
        } else {
            let now = this.withheld.len().min(buf.remaining());
            buf.put_slice(&this.withheld[..now]);
            this.withheld.advance(now);
            Ok(())
        };
        let (status, login, password) = (&this.status, &mut this.login, &mut this.password);
        let (early, mut is_anothers) = (&mut this.early, false);
        let new = &buf.filled()[before..];
        let left = this.backend.advance(new, |tag, body| {
            if let Some(trace) = login.received(tag, body) {
                status.trace_login(trace);
            }
            status.received(tag, body);
            if let Some(early) = early.as_mut().filter(|_| status.responses() <= 1) {
                match tag {
                    // The server reads nothing behind a login that it refuses.
                    tag::ERROR_RESPONSE => early.release(),
                    tag::READY_FOR_QUERY => is_anothers = !early.settle(),
                    _ => {}
                }
            }
            match tag {
                tag::AUTHENTICATION if is_last_step(body) => {
                    password.check(body);
                    this.progress.reach(Stage::Waking);
                }
                tag::AUTHENTICATION => password.check(body),
                tag::READY_FOR_QUERY
                    if is_holding && status.responses() >= this.handoff.responses =>
                {
                    return ControlFlow::Break(());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        let passed = buf.filled().len() - left;
        this.withheld.extend_from_slice(&buf.filled()[passed..]);
        buf.set_filled(passed);
        if let Some(error) = password.refused() {
            if let Some(early) = early {
                early.release();
            }
            status.end();
            return Poll::Ready(Err(error));
        }
        if is_anothers {
            status.end();
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if status.responses() == 0 {
            this.received = this.received.saturating_add(passed - before);
            if this.received.saturating_add(this.backend.remaining()) > LONGEST_LOGIN {
                status.end();
                let error = io::Error::new(io::ErrorKind::InvalidData, ENDLESS_LOGIN);
                return Poll::Ready(Err(error));
            }
        }
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
        if this.password.take_answer(buf) {
            this.login.sent(frontend::PASSWORD);
            return Poll::Ready(Ok(buf.len()));
        }
        let result = ready!(this.transport()?.poll_write(cx, buf));
        match &result {
            Ok(written) => {
                this.status.mark_write();
                let (status, login) = (&this.status, &mut this.login);
                let (mut has_begun, mut is_last) = (false, false);
                login.wrote(&buf[..*written]);
                this.frontend.advance(&buf[..*written], |tag, body| {
                    note_sql(status, tag, body);
                    login.sent(tag);
                    status.sent(tag);
                    has_begun |= tag == frontend::STARTUP;
                    is_last |= tag == frontend::PASSWORD;
                    ControlFlow::Continue(())
                });
                is_last &= this.progress.stage() == Stage::Waking && *written == buf.len();
                if let Some(channel) = this.channel.as_mut() {
                    if has_begun {
                        is_last = this.password.send(&mut channel.transport)?;
                    }
                    if let Some(early) = this.early.as_mut().filter(|_| is_last) {
                        early.set_due();
                        let _ = early.poll_send(cx, &mut channel.transport);
                    }
                }
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
            let mut left = lock(&self.handoff.left);
            let withheld = std::mem::take(&mut self.withheld);
            // Before the password the protocol has no Terminate.
            if self.progress.stage() == Stage::Waking && !self.status.has_ended() {
                *left = self.channel.take().map(|channel| (channel, withheld));
            }
        } else {
            self.status.end();
        }
    }
}

/// Returns whether the server has refused the WebSocket that was to carry the login. One that was opened and closed again, by a
/// proxy on the way for example, may have carried what was sent.
fn is_refused(error: &io::Error) -> bool {
    #[cfg(feature = "websocket")]
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) {
        return matches!(error, crate::transport::WebSocketError::Refused { .. });
    }
    let _ = error;
    false
}

/// How many bytes a server may send until it is ready, or announce: Postgres sends a few hundred. Anything else that
/// listens on the port may announce gigabytes, which tokio-postgres would wait for and keep.
const LONGEST_LOGIN: usize = 1 << 20;

/// What is wrong with a login that is longer.
pub(crate) const ENDLESS_LOGIN: &str = "the answer to the login is longer than Postgres's";

/// Notes whether a statement of tokio-postgres may end a transaction. A long text may: its end is not known.
fn note_sql(status: &SessionStatus, tag: u8, body: &[u8]) {
    let mut texts = body.split(|byte| *byte == 0);
    let (sql, effects): (_, fn(&str) -> Effects) = match tag {
        frontend::QUERY if body.len() >= MAX_PREFIX => return status.bounds.note_unknown(),
        frontend::QUERY => (texts.next(), Effects::of_several),
        frontend::PARSE => (texts.nth(1), Effects::of_one),
        _ => return,
    };
    let sql = String::from_utf8_lossy(sql.unwrap_or_default());
    status.bounds.note(&sql, effects(&sql));
}
