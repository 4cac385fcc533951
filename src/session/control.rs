//! [`SessionControl`]: what a pool knows of a session beside its connection, and how it ends one that tokio-postgres
//! drives.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{FutureExt, Stream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;
use tokio_util::task::AbortOnDropHandle;

use super::abandon::{Abandoned, Decision, cancel, until_decided};
use super::canceller::Canceller;
use super::channel::Channel;
use super::condemned::Condemned;
use super::handle::SessionHandle;
use super::pipelining::Pipelining;
use super::response_timeout::{ResponseTimer, response_timeout};
use super::status::SessionStatus;
use super::tap::LoginTap;
use super::verdict::Verdict;
use crate::protocol::tag::frontend;
use crate::protocol::{Cause, QUERY_CANCELED, ServerError};
use crate::transport::Dialler;
use crate::util::clock::Moment;
use crate::util::error_chain::chain;
use crate::util::lock;

/// What is kept of a session beside the connection itself.
#[derive(Clone, Debug)]
pub(crate) struct SessionControl {
    pub(crate) status: Arc<SessionStatus>,
    pub(crate) canceller: Canceller,
    /// How long the server may send nothing while it owes a response.
    pub(crate) response_timeout: Option<Duration>,
    pipelining: Arc<Pipelining>,
    /// The task in which tokio-postgres drives the session, until the session is to end. A [`SessionHandle`] has none,
    /// and sees to its own abandoned responses.
    ///
    /// [`SessionHandle`]: super::SessionHandle
    driver: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// The handle of a session that tokio-postgres does not drive.
    handle: Arc<OnceLock<Weak<SessionHandle>>>,
}

/// tokio-postgres's half of a session.
pub(crate) type Driver = tokio_postgres::Connection<LoginTap, LoginTap>;

impl SessionControl {
    pub(crate) fn new(
        status: Arc<SessionStatus>,
        canceller: Canceller,
        response_timeout: Option<Duration>,
        pipelining: Arc<Pipelining>,
    ) -> Self {
        Self {
            status,
            canceller,
            response_timeout,
            pipelining,
            driver: Arc::default(),
            handle: Arc::default(),
        }
    }

    /// Begins with a login that is under way.
    pub(crate) fn of_login(
        dialler: Arc<Dialler>,
        response_timeout: Option<Duration>,
        pipelining: Arc<Pipelining>,
    ) -> Self {
        let status = SessionStatus::new();
        status.sent(frontend::STARTUP);
        Self::new(
            Arc::new(status),
            Canceller::pending(dialler),
            response_timeout,
            pipelining,
        )
    }

    /// Makes a handle that takes the session over, with what was `read` of its stream.
    pub(crate) fn take_over(&self, channel: Channel, read: BytesMut) -> Arc<SessionHandle> {
        let (status, canceller) = (Arc::clone(&self.status), self.canceller.clone());
        let (limit, pipelining) = (self.response_timeout, Arc::clone(&self.pipelining));
        let handle = SessionHandle::new(channel, read, status, canceller, limit, pipelining);
        let handle = Arc::new(handle);
        let _ = self.handle.set(Arc::downgrade(&handle));
        handle
    }

    /// Takes over what the login of this session has told, which has succeeded.
    pub(crate) fn logged_in(&self, login: &Self) {
        self.canceller.adopt(&login.canceller);
        self.status.adopt(&login.status);
    }

    /// Ends the session, whose login has failed. What was sent behind the login has not run if it was `refused`, and may
    /// have run otherwise.
    pub(crate) fn not_logged_in(
        &self,
        words: &str,
        hint: Option<&str>,
        refused: Option<Arc<dyn Error + Send + Sync>>,
    ) {
        let error = match &refused {
            Some(_) => ServerError::local("08001", words),
            None => ServerError::local(
                "08006",
                &format!("{words}; the statement that was sent with the login may have run"),
            ),
        };
        self.canceller.give_up();
        self.status.end_with(ServerError {
            hint: hint.map(str::to_owned),
            cause: refused.map(Cause),
            ..error
        });
    }

    /// Ends the session, whose login is under way, because a statement was given up that no other login is to send.
    pub(crate) fn withdraw(&self) {
        self.canceller.give_up();
        self.status.set_given_up(true);
        self.status.end_with(ServerError::local(
            QUERY_CANCELED,
            "the connection was closed: a statement was given up before the login was answered",
        ));
    }

    /// Notes that no login will tell the key for cancel requests any more, if none has.
    pub(crate) fn forgo_key(&self) {
        self.canceller.give_up();
    }

    fn handle(&self) -> Option<Arc<SessionHandle>> {
        self.handle.get().and_then(Weak::upgrade)
    }

    /// Returns how many responses are complete, if one is outstanding of which nothing can be read.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        let responses = self.status.responses();
        let is_in_use = !self.status.is_logging_in() && !self.status.has_ended();
        if !self.status.is_busy() || !is_in_use {
            return None;
        }
        let is_unanswered = match self.handle() {
            Some(handle) => handle.is_unanswered(),
            None => self.status.is_awaited(),
        };
        is_unanswered.then_some(responses)
    }

    /// Takes the session from its callers if it is still unanswered after a `silence`.
    pub(crate) fn condemn(&self, silence: Duration, responses: u64) -> Option<Condemned> {
        self.handle()?.condemn(silence, responses)
    }

    /// Ends a session that tokio-postgres drives, if it is still unanswered after a `silence`. Returns whether it was.
    pub(crate) fn cut_off(&self, verdict: Verdict, silence: Duration) -> bool {
        let is_silent = self.status.still_for(&Moment::now()) >= silence;
        if !is_silent || self.handle().is_some() || self.unanswered().is_none() {
            return false;
        }
        // To end the driver fails what it waits for.
        self.status.end_with(verdict.error(silence));
        self.take_driver().is_some()
    }

    /// Drives the session in a task of its own.
    pub(crate) fn drive(&self, mut driver: Driver) {
        let (status, canceller) = (Arc::clone(&self.status), self.canceller.clone());
        let (limit, mut timer) = (self.response_timeout, ResponseTimer::default());
        let task = tokio::spawn(async move {
            let mut next = poll_fn(|cx| {
                let message = driver.poll_message(cx);
                // A driver whose caller does not take the rows reads nothing, and cannot hear the server.
                let is_waiting = message.is_pending() && status.is_busy() && status.is_awaited();
                match limit.filter(|_| is_waiting) {
                    Some(limit) => {
                        ready!(timer.poll(cx, limit, &status, &canceller));
                        status.end_with(response_timeout(limit));
                        Poll::Ready(None)
                    }
                    None => {
                        timer.end();
                        message
                    }
                }
            });
            loop {
                match (&mut next).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        tracing::debug!(severity = notice.severity(), "{}", notice.message());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(error = %chain(&error), "a connection has ended");
                        break;
                    }
                    None => break,
                }
            }
        });
        *self.driver() = Some(task);
    }

    /// Gives up an outstanding response of a connection that nobody holds: the response has a moment to arrive, and
    /// then costs the session, since a driver does not tell an abandoned statement from a name that it closes.
    pub(crate) fn abandon(&self) {
        if self.driver().is_none() {
            return;
        }
        let session = self.clone();
        let driven = DrivenSession {
            responses: session.status.responses(),
            control: session.clone(),
        };
        self.canceller.spawn(async move {
            if let Some(outstanding) = until_decided(driven, &session.canceller).await {
                cancel(&session.canceller, outstanding);
            }
        });
    }

    /// Returns the runtime on which the session was made.
    pub(crate) fn runtime(&self) -> &Handle {
        self.canceller.runtime()
    }

    /// Ends the session at once if it owes a response: its driver would wait for it.
    pub(crate) fn close(&self) {
        if !self.status.is_busy() || self.status.has_ended() {
            return;
        }
        if let Some(driver) = self.take_driver() {
            cancel(&self.canceller, driver);
        }
    }

    fn take_driver(&self) -> Option<DriverEnd> {
        let driver = self.driver().take()?;
        Some(DriverEnd(AbortOnDropHandle::new(driver)))
    }

    fn driver(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        lock(&self.driver)
    }
}

/// A session that tokio-postgres drives, with a response that nobody waits for.
struct DrivenSession {
    control: SessionControl,
    /// How many responses had arrived when the connection was given back.
    responses: u64,
}

impl DrivenSession {
    fn is_late(&self) -> bool {
        let status = &self.control.status;
        status.responses() == self.responses && status.is_busy()
    }
}

impl Abandoned for DrivenSession {
    type Outstanding = DriverEnd;

    async fn until_complete(&mut self) {
        // The driver reads the response, and tells nobody.
        std::future::pending().await
    }

    fn decide(&mut self) -> Decision<DriverEnd> {
        if !self.is_late() {
            return Decision::Keep;
        }
        let status = &self.control.status;
        status.set_given_up(true);
        // Rechecks after setting the flag: a later holder may have been handed the connection before, and have
        // received a response since.
        let driver = self.is_late().then(|| self.control.take_driver());
        match driver.flatten() {
            Some(driver) => Decision::Cancel(driver),
            None => {
                status.set_given_up(false);
                Decision::Keep
            }
        }
    }
}

/// Ends once the driver has come to its end. Aborts the driver if dropped before.
struct DriverEnd(AbortOnDropHandle<()>);

impl Stream for DriverEnd {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let _ = ready!(self.0.poll_unpin(cx));
        Poll::Ready(None)
    }
}
