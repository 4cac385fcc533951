//! [`Link`]: requests and answers over one stream, spoken by whoever waits for an answer.
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

use super::Channel;
use super::answer::Answer;
use super::engine::Engine;
use super::error::{Failure, ServerError};
use super::message::Message;
use super::observed::Observed;
use super::opening::{Command, Opening, in_front, refusal};
use super::remains::Remains;
use super::request::{Messages, Request};
use super::stall::Stall;
use super::waiters::{Waiters, Waiting};
use crate::connect::Canceller;
use bytes::BytesMut;

/// One end of a session.
pub(crate) struct Link {
    engine: Mutex<Engine>,
    waiters: Arc<Waiters>,
    observed: Arc<Observed>,
    canceller: Canceller,
    /// Whether somebody may still send something.
    held: AtomicBool,
    /// How often the connection has changed hands.
    hands: AtomicU64,
}

impl Link {
    pub(crate) fn new(
        channel: Channel,
        read: BytesMut,
        observed: Arc<Observed>,
        canceller: Canceller,
    ) -> Self {
        let waiters = Arc::new(Waiters::default());
        let engine = Engine::new(channel, read, Arc::clone(&observed), Arc::clone(&waiters));
        Self {
            engine: Mutex::new(engine),
            waiters,
            observed,
            canceller,
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
        if self.observed.is_busy() {
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

    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    pub(super) fn shared_observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observed)
    }

    pub(crate) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// Sends a request; the commands of [`open`](Self::open) ride in front of it, in the same group.
    pub(crate) async fn send(self: &Arc<Self>, request: Request) -> Result<Answer<'_>, Failure> {
        self.send_with(request, true).await
    }

    /// Sends a request that may run before a transaction that is only to be opened.
    pub(crate) async fn send_ahead(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Answer<'_>, Failure> {
        self.send_with(request, false).await
    }

    async fn send_with(
        self: &Arc<Self>,
        request: Request,
        opens: bool,
    ) -> Result<Answer<'_>, Failure> {
        let mut waiting = Waiting::new(&self.waiters);
        let mut stall = Stall::default();
        let send = poll_fn(|cx| {
            let sent = self.poll_send(cx, &mut waiting, &request, opens);
            if sent.is_pending() {
                ready!(stall.poll(cx, &self.canceller, waiting.stalled));
                return Poll::Ready(Err(Failure::Unread));
            }
            sent
        });
        let (id, begun) = send.await?;
        let ahead = match &request {
            Request::Extended(_) => 0,
            Request::Simple(_) | Request::Copy(_) => in_front(&begun).chars().count(),
        };
        Ok(Answer::new(self, waiting, id, begun, ahead))
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        request: &Request,
        opens: bool,
    ) -> Poll<Result<(u64, Vec<Command>), Failure>> {
        let mut engine = self.lock();
        if !engine.exchanges.is_outstanding() && !self.waiters.is_quiet() {
            // What has ended in the meantime is told before anything is sent: then it can be done again.
            engine.drain();
        }
        loop {
            if self.observed.has_abandoned_transaction() {
                return Poll::Ready(Err(Failure::Abandoned));
            }
            if let Some(lost) = &engine.lost {
                return Poll::Ready(Err(Failure::Lost(lost.clone())));
            }
            if opens && matches!(engine.opening, Opening::Refused) {
                return Poll::Ready(Err(Failure::Server(Box::new(refusal()))));
            }
            // Behind a BEGIN that fails, this would run without a transaction; behind a statement that was given
            // up, perhaps in one. A cancel request that is under way would stop it. And PgBouncer loses count
            // of the answers where anything follows a COPY before its end.
            let exchanges = &engine.exchanges;
            let waits =
                exchanges.is_opening() || exchanges.is_copying() || exchanges.is_abandoned();
            if !waits && engine.cancels == 0 {
                break;
            }
            waiting.register(cx);
            waiting.stalled = engine.exchanges.stalled(None);
            ready!(engine.pump());
        }
        Poll::Ready(engine.submit(request, opens).map_err(Failure::Unsendable))
    }

    /// Reads what has arrived unasked; waits for nothing.
    pub(crate) fn look(&self) {
        if !self.waiters.is_quiet() {
            self.lock().drain();
        }
    }

    /// Whether a request was given up whose answer is still outstanding.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().exchanges.is_abandoned()
    }

    /// The next notification, of those that came with answers and of those that come by themselves.
    pub(crate) async fn notification(&self) -> Result<diesel::pg::PgNotification, Failure> {
        let mut waiting = Waiting::new(&self.waiters);
        poll_fn(|cx| {
            let mut engine = self.lock();
            waiting.register(cx);
            loop {
                if let Some(notification) = engine.notifications.pop_front() {
                    return Poll::Ready(Ok(notification));
                }
                if let Some(lost) = &engine.lost {
                    return Poll::Ready(Err(Failure::Lost(lost.clone())));
                }
                ready!(engine.pump());
            }
        })
        .await
    }

    /// Writes data of a COPY, at the stream's own pace.
    pub(super) async fn stream(&self, id: u64, messages: &Messages) -> Result<(), Failure> {
        let mut waiting = Waiting::new(&self.waiters);
        poll_fn(|cx| {
            let mut engine = self.lock();
            loop {
                if let Some(lost) = &engine.lost {
                    return Poll::Ready(Err(Failure::Lost(lost.clone())));
                }
                if engine.output.len() < HIGH_WATER {
                    return Poll::Ready(Ok(()));
                }
                waiting.register(cx);
                // Reading writes first; only what could not be written wakes this again.
                if engine.pump().is_pending() && engine.output.len() >= HIGH_WATER {
                    return Poll::Pending;
                }
            }
        })
        .await?;
        self.push(id, messages);
        Ok(())
    }

    /// Writes data of a COPY, or its end, unless it has come to an end by itself.
    pub(super) fn push(&self, id: u64, messages: &Messages) {
        let mut engine = self.lock();
        engine.drain();
        if !engine.exchanges.takes_data(id) {
            return;
        }
        engine.output.extend_from_slice(messages.as_bytes());
        // Who waits for the answer is told of a failure.
        let _ = engine.write();
    }

    /// Ends the session: with Terminate, or, where an answer is outstanding, by cancelling it.
    pub(crate) fn close(&self) {
        self.look();
        let mut engine = self.lock();
        let words = ServerError::local("08003", "the connection was closed");
        if engine.exchanges.is_outstanding() {
            let remains = engine.give_up(words);
            drop(engine);
            self.cancel(remains);
        } else if let Some(mut channel) = engine.channel.take() {
            engine.lose(words);
            let mut goodbye = Messages::default();
            goodbye.terminate();
            channel.transport.close_with(goodbye.as_bytes());
        }
    }

    /// Stops in the background what the server is still at.
    pub(super) fn cancel(&self, remains: Option<Remains>) {
        if let Some(remains) = remains {
            let canceller = self.canceller.clone();
            self.canceller
                .spawn(async move { canceller.cancel_until(remains).await });
        }
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        Locked {
            engine: self.engine.lock().unwrap_or_else(PoisonError::into_inner),
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
        let mut engine = self.lock();
        let mut registered = false;
        loop {
            let full = engine.exchanges.is_full();
            if let Some(message) = engine.exchanges.take_kept(id) {
                if full && !engine.exchanges.is_full() {
                    self.waiters.set_due();
                }
                return Poll::Ready(Ok(message));
            }
            if engine.lost.is_some() && engine.exchanges.is_committed(id) {
                return Poll::Ready(Ok(Message::ready()));
            }
            if let Some(lost) = &engine.lost {
                return Poll::Ready(Err(Failure::Lost(lost.clone())));
            }
            match engine.pump_for(id) {
                Poll::Ready(Some(message)) => return Poll::Ready(Ok(message)),
                Poll::Ready(None) => {}
                Poll::Pending if registered => {
                    waiting.stalled = engine.exchanges.stalled(Some(id));
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

/// The engine, locked. Whoever it has news for is woken once it is not.
pub(super) struct Locked<'a> {
    engine: MutexGuard<'a, Engine>,
    /// Behind the guard: fields are dropped in their order.
    _news: News<'a>,
}

struct News<'a>(&'a Waiters);

impl Deref for Locked<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Drop for News<'_> {
    fn drop(&mut self) {
        self.0.wake_due();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("observed", &self.observed)
            .finish_non_exhaustive()
    }
}

/// How much may wait to be written before its source has to.
const HIGH_WATER: usize = 64 * 1024;
