//! [`SessionHandle`]: requests and answers over one stream, spoken by whoever waits for an answer.
//!
//! There is no task that drives the stream: the futures that wait for answers do, under a lock that
//! none of them holds across an await. So an idle connection costs nothing, and a query no change of
//! tasks.

use std::fmt;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::abandon::cancel;
use super::canceller::Canceller;
use super::channel::Channel;
use super::error::Failure;
use super::pipeline::Pipeline;
use super::silence::{Silence, response_timeout};
use super::status::SessionStatus;
use super::waiters::{Waiters, Waiting};
use crate::protocol::{Message, Messages, ServerError};
use crate::util::clock::Moment;
use bytes::BytesMut;

/// One end of a session.
pub(crate) struct SessionHandle {
    pipeline: Mutex<Pipeline>,
    waiters: Arc<Waiters>,
    status: Arc<SessionStatus>,
    canceller: Canceller,
    /// How long the server may send nothing while somebody waits for a response.
    response_timeout: Option<Duration>,
    /// Whether somebody may still send something.
    held: AtomicBool,
    /// How often the connection has changed hands.
    hands: AtomicU64,
}

impl SessionHandle {
    pub(crate) fn new(
        channel: Channel,
        read: BytesMut,
        status: Arc<SessionStatus>,
        canceller: Canceller,
        response_timeout: Option<Duration>,
    ) -> Self {
        let waiters = Arc::new(Waiters::default());
        let pipeline = Pipeline::new(channel, read, Arc::clone(&status), Arc::clone(&waiters));
        Self {
            pipeline: Mutex::new(pipeline),
            waiters,
            status,
            canceller,
            response_timeout,
            held: AtomicBool::new(true),
            hands: AtomicU64::new(0),
        }
    }

    /// In whose hands the connection is.
    pub(crate) fn hands(&self) -> u64 {
        self.hands.load(Ordering::Acquire)
    }

    /// Takes note that whoever has held the connection does not any more, nor stops anything on it.
    pub(crate) fn change_hands(&self) {
        self.hands.fetch_add(1, Ordering::AcqRel);
    }

    /// As [`change_hands`](Self::change_hands), into nobody's.
    pub(crate) fn let_go(&self) {
        self.change_hands();
        if self.status.is_busy() {
            self.set_held(false);
        }
    }

    /// Sets whether somebody holds the connection, or it has been given back to a pool.
    pub(crate) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
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

    /// Reads what has arrived unasked; waits for nothing.
    pub(crate) fn look(&self) {
        if !self.waiters.is_quiet() {
            self.lock().drain();
        }
    }

    /// Whether a request was given up whose answer is still outstanding.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().requests.is_abandoned()
    }

    /// The next notification, of those that came with answers and of those that come by themselves.
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

    /// Writes data of a COPY, at the stream's own pace.
    pub(super) async fn stream(&self, id: u64, messages: &Messages) -> Result<(), Failure> {
        let mut waiting = Waiting::new(&self.waiters);
        let mut silence = Silence::default();
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
                // Reading writes first; only what could not be written wakes this again.
                if pipeline.pump().is_pending() && pipeline.output.len() >= HIGH_WATER {
                    drop(pipeline);
                    return self.poll_silence(cx, &mut silence).map(Err);
                }
            }
        })
        .await?;
        self.push(id, messages);
        Ok(())
    }

    /// Writes data of a COPY, or its end, unless it has come to an end by itself.
    pub(super) fn push(&self, id: u64, messages: &Messages) {
        let mut pipeline = self.lock();
        pipeline.drain();
        if !pipeline.requests.takes_data(id) {
            return;
        }
        pipeline.output.extend_from_slice(messages.as_bytes());
        // Who waits for the answer is told of a failure.
        let _ = pipeline.write();
    }

    /// Ends the session: with Terminate, or by cancelling if a response is outstanding.
    pub(crate) fn close(&self) {
        self.look();
        let mut pipeline = self.lock();
        let words = ServerError::local("08003", "the connection was closed");
        if pipeline.requests.is_outstanding() {
            let outstanding = pipeline.give_up(words);
            drop(pipeline);
            if let Some(outstanding) = outstanding {
                cancel(&self.canceller, outstanding);
            }
        } else if let Some(mut channel) = pipeline.channel.take() {
            pipeline.lose(words);
            let mut goodbye = Messages::default();
            goodbye.terminate();
            channel.transport.close_with(goodbye.as_bytes());
        }
    }

    /// Resolves once the server has been silent for the `response_timeout`, if there is one: the session is lost then,
    /// and its statements are cancelled in the background.
    pub(super) fn poll_silence(
        &self,
        cx: &mut Context<'_>,
        silence: &mut Silence,
    ) -> Poll<Failure> {
        let Some(limit) = self.response_timeout else {
            return Poll::Pending;
        };
        ready!(silence.poll(cx, limit, &self.status, &self.canceller));
        let mut pipeline = self.lock();
        pipeline.drain();
        if pipeline.lost.is_none() && self.status.quiet_at(&Moment::now()) < limit {
            // Something has arrived just now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let outstanding = pipeline.give_up(response_timeout(limit));
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
            pipeline: self.pipeline.lock().unwrap_or_else(PoisonError::into_inner),
            _news: News(&self.waiters),
        }
    }

    pub(super) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    pub(super) fn poll_message(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        id: u64,
    ) -> Poll<Result<Message, Failure>> {
        let mut pipeline = self.lock();
        let mut registered = false;
        loop {
            let full = pipeline.requests.is_full();
            if let Some(message) = pipeline.requests.take_kept(id) {
                if full && !pipeline.requests.is_full() {
                    self.waiters.set_due();
                }
                return Poll::Ready(Ok(message));
            }
            if pipeline.lost.is_some() && pipeline.requests.is_committed(id) {
                return Poll::Ready(Ok(Message::ready()));
            }
            if let Some(lost) = &pipeline.lost {
                return Poll::Ready(Err(Failure::Lost(lost.clone())));
            }
            match pipeline.pump_for(id) {
                Poll::Ready(Some(message)) => return Poll::Ready(Ok(message)),
                Poll::Ready(None) => {}
                Poll::Pending if registered => {
                    waiting.stalled = pipeline.requests.stalled(Some(id));
                    return Poll::Pending;
                }
                // And look again: what has come before that has woken nobody.
                Poll::Pending => {
                    waiting.register(cx);
                    registered = true;
                }
            }
        }
    }
}

/// The pipeline, locked. Whoever it has news for is woken once it is not.
pub(super) struct Locked<'a> {
    pipeline: MutexGuard<'a, Pipeline>,
    /// Behind the guard: fields are dropped in their order.
    _news: News<'a>,
}

struct News<'a>(&'a Waiters);

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

impl Drop for News<'_> {
    fn drop(&mut self) {
        self.0.wake_due();
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// How much may wait to be written before its source has to.
const HIGH_WATER: usize = 64 * 1024;
