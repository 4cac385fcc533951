//! [`EstablishedSession`]: a session that is there, before it is known who will speak on it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream;
use tokio::task::AbortHandle;
use tokio_postgres::{AsyncMessage, Client};

use crate::pooler::PoolerSupport;
use crate::session::{Canceller, LoginTap, SessionHandle, SessionStatus, StreamHandoff};

/// A session that is authenticated, and that nothing has been asked of yet.
///
/// It is what a type of connection is made of; see [`Establish`](crate::Establish).
pub struct EstablishedSession {
    pub(super) client: Client,
    pub(super) driver: Driver,
    pub(super) handoff: Arc<StreamHandoff>,
    pub(super) session: SessionControl,
    pub(super) pooler: Arc<PoolerSupport>,
}

/// What is kept of a connection beside the connection itself.
#[derive(Clone, Debug)]
pub(crate) struct SessionControl {
    pub(crate) status: Arc<SessionStatus>,
    pub(crate) canceller: Canceller,
    /// The task that drives it, where there is one.
    driver: Arc<OnceLock<AbortHandle>>,
    /// Set before its statement is cancelled from here.
    given_up: Arc<AtomicBool>,
}

impl SessionControl {
    pub(super) fn new(status: Arc<SessionStatus>, canceller: Canceller) -> Self {
        Self {
            status,
            canceller,
            driver: Arc::default(),
            given_up: Arc::default(),
        }
    }

    /// Whether what runs on it is being cancelled, so that nothing else must.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// What its driver still waits for has a moment to come, and then costs the session: a driver does not
    /// tell a statement that was given up from a name that it closes.
    pub(crate) fn settle(&self) {
        if self.driver.get().is_none() {
            return;
        }
        let (session, answers) = (self.clone(), self.status.answers());
        self.canceller.spawn(async move {
            session.canceller.sleep(GRACE).await;
            let status = &session.status;
            let is_late = || status.answers() == answers && status.is_busy();
            if !is_late() {
                return;
            }
            // Rechecks after setting the flag: an earlier holder may have received an answer.
            session.given_up.store(true, Ordering::SeqCst);
            if is_late() {
                session.abandon();
            } else {
                session.given_up.store(false, Ordering::SeqCst);
            }
        });
    }

    /// Ends a session that still owes an answer: the driver would wait for it, and nobody wants it.
    pub(crate) fn abandon(&self) {
        let Some(driver) = self.driver.get().cloned() else {
            return;
        };
        if self.status.is_busy() && !self.status.has_ended() {
            let canceller = self.canceller.clone();
            self.canceller.spawn(async move {
                let ended = stream::unfold((), async |()| {
                    while !driver.is_finished() {
                        canceller.sleep(LOOK).await;
                    }
                    None
                });
                canceller.cancel_until(pin!(ended)).await;
                driver.abort();
            });
        }
    }
}

/// For this long an answer that nobody waits for may still come in without costing the session.
const GRACE: Duration = Duration::from_millis(100);

/// How often a driver is asked whether it has come to its end.
const LOOK: Duration = Duration::from_millis(10);

impl EstablishedSession {
    pub(crate) fn session(&self) -> SessionControl {
        self.session.clone()
    }

    /// Leaves the session with tokio-postgres: a task drives it from now on.
    pub fn into_client(self) -> Client {
        self.handoff.decline();
        let mut driver = self.driver;
        let task = tokio::spawn(async move {
            loop {
                match poll_fn(|cx| driver.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        tracing::debug!(severity = notice.severity(), "{}", notice.message());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(error = %error, "a connection has ended");
                        break;
                    }
                    None => break,
                }
            }
        });
        let _ = self.session.driver.set(task.abort_handle());
        self.client
    }

    /// Takes the session from tokio-postgres, which has nothing of it in its buffers: the tap passes
    /// nothing on behind the handshake.
    pub(crate) fn into_handle(self) -> io::Result<(SessionHandle, Arc<PoolerSupport>)> {
        drop(self.driver);
        let left = self.handoff.take();
        let (channel, read) = left.ok_or(io::ErrorKind::NotConnected)?;
        let SessionControl {
            status, canceller, ..
        } = self.session;
        Ok((
            SessionHandle::new(channel, read, status, canceller),
            self.pooler,
        ))
    }
}

impl fmt::Debug for EstablishedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EstablishedSession").finish_non_exhaustive()
    }
}

/// tokio-postgres's half of a session.
pub(super) type Driver = tokio_postgres::Connection<LoginTap, LoginTap>;
