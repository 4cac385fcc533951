//! [`SessionHandle`]: requests and responses over one stream.
//!
//! No task drives the stream. The futures that wait for responses read it, under a lock that none of them holds across
//! an await: an idle connection costs nothing, and a query no switch of tasks.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::abandon::cancel;
use super::canceller::Canceller;
use super::channel::Channel;
use super::error::Failure;
use super::pending::CopyIn;
use super::pipeline::Pipeline;
use super::pipelining::Pipelining;
use super::response_timeout::{ResponseTimer, response_timeout};
use super::status::SessionStatus;
use super::waiters::{Waiters, Waiting};
use crate::protocol::{Malformed, Message, Messages, ServerError};
use crate::util::clock::Moment;
use crate::util::lock;
use bytes::BytesMut;

/// The client's end of a session.
pub(crate) struct SessionHandle {
    pipeline: Mutex<Pipeline>,
    waiters: Arc<Waiters>,
    status: Arc<SessionStatus>,
    canceller: Canceller,
    /// How long the server may send nothing while somebody waits for a response.
    response_timeout: Option<Duration>,
    /// Whether somebody holds the connection, and may send a request.
    is_held: AtomicBool,
    /// Numbers those who hold the connection, one after the other.
    holder: AtomicU64,
}

impl SessionHandle {
    pub(crate) fn new(
        channel: Channel,
        read: BytesMut,
        status: Arc<SessionStatus>,
        canceller: Canceller,
        response_timeout: Option<Duration>,
        pipelining: Arc<Pipelining>,
    ) -> Self {
        let waiters = Arc::new(Waiters::default());
        let (of_status, of_waiters) = (Arc::clone(&status), Arc::clone(&waiters));
        let pipeline = Pipeline::new(channel, read, of_status, of_waiters, pipelining);
        Self {
            pipeline: Mutex::new(pipeline),
            waiters,
            status,
            canceller,
            response_timeout,
            is_held: AtomicBool::new(true),
            holder: AtomicU64::new(0),
        }
    }

    /// Returns the number of the connection's holder.
    pub(crate) fn holder(&self) -> u64 {
        self.holder.load(Ordering::Acquire)
    }

    /// Notes that the holder has given the connection back: its cancel tokens have no effect from now on.
    pub(crate) fn change_holder(&self) {
        self.holder.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that somebody holds the connection, and reads what has arrived without waiting. What nobody waits for is read
    /// from now on: the response to a request of the session's own, behind a COPY that has failed, may be all that is
    /// outstanding.
    pub(crate) fn hold(self: &Arc<Self>) {
        self.is_held.store(true, Ordering::Release);
        if !self.waiters.is_exhausted() || self.status.is_busy() {
            self.see_to_orphans(self.lock());
        }
    }

    /// Notes that nobody holds the connection, and reads what has arrived of an outstanding response.
    pub(crate) fn release(&self) {
        self.change_holder();
        if self.status.is_busy() {
            self.read_available();
            self.is_held.store(false, Ordering::Release);
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    pub(crate) fn status(&self) -> &SessionStatus {
        &self.status
    }

    pub(super) fn shared_status(&self) -> Arc<SessionStatus> {
        Arc::clone(&self.status)
    }

    pub(crate) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// Reads what has arrived, without waiting.
    pub(crate) fn read_available(&self) {
        if !self.waiters.is_exhausted() {
            self.lock().read_available();
        }
    }

    /// Has `sql` run in front of the first request, in the same flight. The session ends if it fails.
    pub(crate) fn require(&self, sql: &'static str) {
        self.lock().settings = Some(sql);
    }

    /// Returns whether the response of an abandoned request is outstanding.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().requests.is_abandoned()
    }

    /// Returns why the session has ended, if it has.
    pub(crate) fn check_open(&self) -> Result<(), Failure> {
        match &self.lock().lost {
            Some(lost) => Err(Failure::Lost(lost.clone())),
            None => Ok(()),
        }
    }

    /// Waits for the next notification, whether it arrives with a response or by itself.
    pub(crate) async fn notification(&self) -> Result<diesel::pg::PgNotification, Failure> {
        let mut waiting = Waiting::new(&self.waiters);
        poll_fn(|cx| {
            let mut pipeline = self.lock();
            waiting.register(cx);
            loop {
                if let Some(notification) = pipeline.notifications.pop_front() {
                    return Poll::Ready(Ok(notification));
                }
                if let Some(lost) = &pipeline.lost {
                    return Poll::Ready(Err(Failure::Lost(lost.clone())));
                }
                ready!(pipeline.pump());
            }
        })
        .await
    }

    /// Writes data of a COPY behind the head of its message, and waits while too much is unwritten.
    pub(super) async fn stream(
        &self,
        id: u64,
        head: &Messages,
        data: &[u8],
    ) -> Result<(), Failure> {
        let mut waiting = Waiting::new(&self.waiters);
        let mut timer = ResponseTimer::default();
        poll_fn(|cx| {
            let mut pipeline = self.lock();
            loop {
                if let Some(lost) = &pipeline.lost {
                    return Poll::Ready(Err(Failure::Lost(lost.clone())));
                }
                if pipeline.output.len() < HIGH_WATER {
                    return Poll::Ready(Ok(()));
                }
                waiting.register(cx);
                // Reading writes first; only a write that is pending wakes this future again.
                if pipeline.pump().is_pending() && pipeline.output.len() >= HIGH_WATER {
                    drop(pipeline);
                    return self.poll_response_timeout(cx, &mut timer).map(Err);
                }
            }
        })
        .await?;
        self.push(id, [head.as_bytes(), data], CopyIn::TakesData);
        Ok(())
    }

    /// Ends the data of a COPY, unless the server has ended the COPY.
    pub(super) fn end_copy(&self, id: u64, messages: &Messages) {
        self.push(id, [messages.as_bytes()], CopyIn::DataEnded);
    }

    fn push<const N: usize>(&self, id: u64, parts: [&[u8]; N], copy_in: CopyIn) {
        let mut pipeline = self.lock();
        pipeline.read_available();
        let Some(request) = pipeline.requests.outstanding_mut(id) else {
            return;
        };
        request.copy_in = copy_in;
        pipeline
            .output
            .reserve(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            pipeline.output.extend_from_slice(part);
        }
        // The response of the COPY tells of a failure.
        let _ = pipeline.write();
    }

    /// Ends the session: with Terminate, or by cancelling if a response is outstanding.
    pub(crate) fn close(&self) {
        self.read_available();
        let mut pipeline = self.lock();
        let cause = ServerError::local("08003", "the connection was closed");
        if pipeline.requests.is_outstanding() {
            let outstanding = pipeline.detach(cause);
            drop(pipeline);
            if let Some(outstanding) = outstanding {
                cancel(&self.canceller, outstanding);
            }
        } else if let Some(channel) = pipeline.channel.take() {
            pipeline.set_lost(cause);
            channel.terminate();
        }
    }

    /// Ends the session for everybody because a message of the server is malformed; returns the failure to report.
    pub(crate) fn set_lost(&self, malformed: Malformed) -> Failure {
        let words = ServerError::from(malformed);
        let mut pipeline = self.lock();
        pipeline.set_lost(words.clone());
        Failure::Lost(pipeline.lost.clone().unwrap_or_else(|| Box::new(words)))
    }

    /// Resolves once the server has been silent for the `response_timeout`, if there is one: the session is lost then,
    /// and its statements are cancelled in the background.
    pub(super) fn poll_response_timeout(
        &self,
        cx: &mut Context<'_>,
        timer: &mut ResponseTimer,
    ) -> Poll<Failure> {
        // A login has a bound of its own.
        let Some(limit) = self
            .response_timeout
            .filter(|_| !self.status.is_logging_in())
        else {
            return Poll::Pending;
        };
        ready!(timer.poll(cx, limit, &self.status, &self.canceller));
        let mut pipeline = self.lock();
        pipeline.read_available();
        if pipeline.lost.is_none() && self.status.silent_for(&Moment::now()) < limit {
            // Something has arrived just now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let outstanding = pipeline.detach(response_timeout(limit));
        let lost = pipeline.lost.clone();
        drop(pipeline);
        if let Some(outstanding) = outstanding {
            cancel(&self.canceller, outstanding);
        }
        let lost = lost.unwrap_or_else(|| Box::new(response_timeout(limit)));
        Poll::Ready(Failure::Lost(lost))
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        Locked {
            pipeline: lock(&self.pipeline),
            wake: WakeOnUnlock {
                waiters: &self.waiters,
                is_due: false,
            },
        }
    }

    pub(super) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Polls for the next message of the response to request `id`.
    pub(super) fn poll_message(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        id: u64,
    ) -> Poll<Result<Message, Failure>> {
        let mut pipeline = self.lock();
        // One that was written meanwhile may have its answer, and would leave the output to nobody.
        if mem::take(&mut waiting.is_held_back) && pipeline.is_unwritten(id) {
            waiting.register(cx);
            // What has arrived before the registration wakes nobody.
            if self.waiters.is_exhausted() {
                // The turn of the first comes again at once. What is submitted until then goes with it, in one write
                // instead of many. If it does not look, the response in front wakes the others.
                let is_first = !mem::replace(&mut pipeline.is_write_due, true);
                drop(pipeline);
                if is_first {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        let mut registered = false;
        loop {
            let full = pipeline.requests.is_full();
            if let Some(message) = pipeline.requests.take_buffered(id) {
                if full && !pipeline.requests.is_full() {
                    pipeline.is_wake_due = true;
                }
                return Poll::Ready(Ok(message));
            }
            if pipeline.lost.is_some() && pipeline.requests.is_committed(id) {
                return Poll::Ready(Ok(Message::ready()));
            }
            if let Some(lost) = &pipeline.lost {
                return Poll::Ready(Err(Failure::Lost(lost.clone())));
            }
            match pipeline.pump_until(id) {
                Poll::Ready(Some(message)) => return Poll::Ready(Ok(message)),
                Poll::Ready(None) => {}
                Poll::Pending => {
                    // Reads again if something has arrived before the registration, which has woken nobody.
                    if !registered {
                        waiting.register(cx);
                        registered = true;
                        if !self.waiters.is_exhausted() {
                            continue;
                        }
                    }
                    waiting.stalled = pipeline.requests.stalled(Some(id));
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The locked pipeline. Wakes the waiters, if they are due, once the lock is free.
pub(super) struct Locked<'a> {
    pipeline: MutexGuard<'a, Pipeline>,
    /// Stands behind the guard, since fields are dropped in their order.
    wake: WakeOnUnlock<'a>,
}

struct WakeOnUnlock<'a> {
    waiters: &'a Waiters,
    is_due: bool,
}

impl Deref for Locked<'_> {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        &self.pipeline
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The guard is dropped after this.
        self.wake.is_due = mem::take(&mut self.pipeline.is_wake_due);
    }
}

impl Drop for WakeOnUnlock<'_> {
    fn drop(&mut self) {
        if self.is_due {
            self.waiters.wake_all();
        }
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// How many bytes may wait to be written before a COPY has to wait.
const HIGH_WATER: usize = 64 * 1024;
