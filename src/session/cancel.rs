//! Cancel requests of a [`CancelToken`](crate::CancelToken), until their effect is known.
//!
//! Neon's proxy closes the socket of a cancel request before it passes the request on. Only the error of a cancelled
//! statement tells that the request has arrived; until then, the request could cancel the next statement instead.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::handle::SessionHandle;
use super::pipeline::Pipeline;
use crate::protocol::ServerError;

impl SessionHandle {
    /// Cancels the requests in flight, in the background: a cancel request that was meant for them has hit the one in
    /// front. Asks again while they run, but five times at most: the server may not have begun the next one when the
    /// request comes, which then stops nothing.
    pub(crate) fn cancel_rest(self: &Arc<Self>) {
        let Some(in_flight) = self.in_flight(self.holder()) else {
            return;
        };
        let (session, canceller) = (Arc::downgrade(self), self.canceller().clone());
        self.canceller().spawn(async move {
            let begin = || session.upgrade()?.begin_cancel(&in_flight);
            for _ in 0..5 {
                canceller.cancel_in_time(begin).await;
                canceller.sleep(LATE_REQUEST).await;
                let session = session.upgrade();
                if !session.is_some_and(|session| session.lock().is_outstanding(&in_flight)) {
                    return;
                }
            }
        });
    }

    /// Returns the requests that are in flight, if there are any and `holder` still holds the connection.
    pub(crate) fn in_flight(&self, holder: u64) -> Option<InFlight> {
        let mut pipeline = self.lock();
        pipeline.read_available();
        let is_outstanding = pipeline.lost.is_none() && pipeline.is_awaited();
        let in_flight = InFlight {
            holder,
            // Those that are held back are not in flight, and no server would confirm that it has cancelled them.
            end: pipeline.next_id - pipeline.held.len() as u64,
        };
        (is_outstanding && self.holder() == holder).then_some(in_flight)
    }

    /// Begins to cancel the requests, unless they are complete; returns what is to be held while a cancel request is made.
    /// No other request is sent until it is known that the cancel request has arrived, and that its server is done with it.
    pub(crate) fn begin_cancel(self: &Arc<Self>, in_flight: &InFlight) -> Option<CancelInProgress> {
        let mut pipeline = self.lock();
        let is_needed = pipeline.is_outstanding(in_flight) && self.holder() == in_flight.holder;
        is_needed.then(|| {
            pipeline.cancels += 1;
            pipeline.open_cancels += 1;
            CancelInProgress(Arc::downgrade(self))
        })
    }
}

/// A cancel request that the server may not be done with: it signals a process twice, and the second signal would stop a
/// statement that has begun since the first (`signal_child` in PostgreSQL's `postmaster.c`).
#[derive(Debug)]
pub(crate) struct CancelInProgress(Weak<SessionHandle>);

impl Drop for CancelInProgress {
    fn drop(&mut self) {
        if let Some(session) = self.0.upgrade() {
            let mut pipeline = session.lock();
            pipeline.open_cancels -= 1;
            pipeline.is_wake_due = true;
        }
    }
}

/// The requests of one holder of the connection that were sent by some time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    holder: u64,
    /// The first id that is not among the requests.
    end: u64,
}

impl Pipeline {
    fn is_outstanding(&mut self, in_flight: &InFlight) -> bool {
        self.read_available();
        let current = self.requests.current().filter(|_| self.is_awaited());
        self.lost.is_none() && current.is_some_and(|request| request.id < in_flight.end)
    }

    /// Notes from an ErrorResponse that a cancel request has arrived. A statement_timeout has the same code, so the
    /// text decides; a text in another language costs the connection.
    pub(super) fn note_cancelled(&mut self, body: &[u8]) {
        if self.cancels == 0 {
            return;
        }
        if ServerError::parse(body).is_cancelled_by_request() {
            self.cancels -= 1;
        }
    }

    /// Returns whether a cancel request is under way, which would cancel a request that is sent now.
    pub(super) fn is_cancelling(&self) -> bool {
        self.cancels > 0 || self.open_cancels > 0
    }

    /// Ends the session if every request that was sent is answered and a cancel request may still be under way.
    pub(super) fn end_if_cancel_pending(&mut self) {
        if self.cancels > 0 && !self.is_awaited() {
            self.set_lost(ServerError::local(
                "08006",
                "the connection was closed: a cancel request may still be under way, and would stop the next \
                 statement",
            ));
        }
    }
}

/// How long a proxy may take to pass a cancel request on. One that comes behind its statement costs the connection, so each
/// has time before there is another.
const LATE_REQUEST: Duration = Duration::from_millis(500);

#[cfg(all(test, unix))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::thread;
    use std::time::Duration;

    use bytes::BytesMut;
    use tokio::net::UnixStream;
    use tokio_util::task::TaskTracker;

    use super::super::canceller::Canceller;
    use super::super::channel::Channel;
    use super::super::status::SessionStatus;
    use super::super::waiters::Waiting;
    use super::*;
    use crate::protocol::Request;
    use crate::transport::{Dialler, Timer, Transport};
    use crate::url::DatabaseUrl;

    /// Returns a session, and the server's end of its stream.
    fn session() -> (Arc<SessionHandle>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let channel = Channel {
            transport: Transport::Unix(ours),
            _open: TaskTracker::new().token(),
        };
        let url = DatabaseUrl::parse("postgresql://u@localhost/db?sslmode=disable").unwrap();
        let dialler = Dialler::new(&url, Duration::from_secs(10), Timer::Runtime).unwrap();
        let canceller = Canceller::pending(Arc::new(dialler));
        let status = Arc::new(SessionStatus::new());
        let session = SessionHandle::new(
            channel,
            BytesMut::new(),
            status,
            canceller,
            None,
            Arc::default(),
        );
        (Arc::new(session), theirs)
    }

    /// Looks how many cancel requests are under way as soon as it is woken, as a future does that waits for their end.
    struct Looking {
        session: Arc<SessionHandle>,
        seen: AtomicU32,
    }

    impl Wake for Looking {
        fn wake(self: Arc<Self>) {
            let open = self.session.lock().open_cancels;
            self.seen.store(open, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_a_cancel_request_is_woken_behind_it() {
        let (session, _theirs) = session();
        let request = Request::Simple("SELECT 1".to_owned());
        let _response = session.send(&request).await.unwrap();
        let in_flight = session.in_flight(session.holder()).unwrap();
        let all: Vec<_> = (0..20)
            .map(|_| session.begin_cancel(&in_flight).unwrap())
            .collect();

        let looking = Arc::new(Looking {
            session: Arc::clone(&session),
            seen: AtomicU32::new(0),
        });
        let mut waiting = Waiting::new(session.waiters());
        waiting.register(&Context::from_waker(&Waker::from(Arc::clone(&looking))));
        for (in_progress, left) in all.into_iter().zip((0..20).rev()) {
            // Another one has the lock, and leaves it to the end of the cancel request and to who is woken.
            let locked = session.lock();
            let end = thread::spawn(move || drop(in_progress));
            thread::sleep(Duration::from_millis(5));
            drop(locked);
            end.join().unwrap();
            assert_eq!(AtomicU32::load(&looking.seen, Ordering::SeqCst), left);
        }
    }
}
