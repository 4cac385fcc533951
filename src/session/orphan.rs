//! Orphans: the outstanding responses of a [`SessionHandle`] that nobody waits for.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::abandon::{Abandoned, Decision, cancel, until_decided};
use super::drain::DrainStream;
use super::handle::{Locked, SessionHandle};
use super::pending::Owner;
use super::waiters::Waiting;
use crate::protocol::{QUERY_CANCELED, ServerError};
use crate::util::clock::Moment;

impl SessionHandle {
    /// Notes that nobody waits for the response any more, and reads what has arrived of it. If its caller has no
    /// result, the response is cancelled once it is late. If its caller `is_satisfied`, the rest may take its time as
    /// long as somebody holds the connection and the rest keeps arriving.
    pub(super) fn abandon(self: &Arc<Self>, id: u64, is_satisfied: bool) {
        let mut pipeline = self.lock();
        if let Some(channel) = pipeline.channel.as_ref().filter(|_| !is_satisfied) {
            channel.transport.give_up();
        }
        if pipeline.requests.abandon(id, is_satisfied) {
            pipeline.refuse_copy(true);
        }
        // The task that reads orphans may wait for this one, as long as somebody else waited for it.
        pipeline.is_wake_due |= pipeline.is_reading_orphans;
        self.see_to_orphans(pipeline);
    }

    /// Reads what has arrived, and has a task read the rest of the responses that nobody waits for.
    pub(super) fn see_to_orphans(self: &Arc<Self>, mut pipeline: Locked<'_>) {
        pipeline.read_available();
        if pipeline.lost.is_some() || pipeline.is_reading_orphans || !pipeline.requests.has_orphan()
        {
            return;
        }
        pipeline.is_reading_orphans = true;
        drop(pipeline);
        let handle = Arc::clone(self);
        self.canceller()
            .spawn(async move { handle.read_orphans().await });
    }

    /// Reads orphans until there is none, or until one is given up.
    async fn read_orphans(self: Arc<Self>) {
        let mut waiting = Waiting::new(self.waiters());
        loop {
            // While somebody waits for a response in front of the orphan, the orphan is not late.
            let next = poll_fn(|cx| self.poll_next_orphan(cx, &mut waiting)).await;
            let Some(id) = next else {
                return;
            };
            let orphan = Orphan {
                handle: &self,
                waiting: &mut waiting,
                id,
                was_worthwhile: false,
            };
            if let Some(outstanding) = until_decided(orphan, self.canceller()).await {
                return cancel(self.canceller(), outstanding);
            }
        }
    }

    fn poll_next_orphan(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
    ) -> Poll<Option<u64>> {
        let mut pipeline = self.lock();
        if pipeline.lost.is_some() || !pipeline.requests.has_orphan() {
            pipeline.is_reading_orphans = false;
            return Poll::Ready(None);
        }
        match pipeline.requests.current() {
            Some(current) if current.owner != Owner::Waiting => Poll::Ready(Some(current.id)),
            _ => {
                waiting.register(cx);
                Poll::Pending
            }
        }
    }
}

/// The response that the server sends next, and that nobody waits for.
struct Orphan<'a, 'h> {
    handle: &'h SessionHandle,
    waiting: &'a mut Waiting<'h>,
    id: u64,
    /// Whether the last decision was to wait because the rest kept arriving for somebody.
    was_worthwhile: bool,
}

impl Abandoned for Orphan<'_, '_> {
    type Outstanding = DrainStream;

    async fn until_complete(&mut self) {
        poll_fn(|cx| self.poll_complete(cx)).await;
    }

    fn decide(&mut self) -> Decision<DrainStream> {
        let mut pipeline = self.handle.lock();
        pipeline.read_available();
        let current = pipeline.requests.current().map(|current| current.id);
        if pipeline.lost.is_some() || current != Some(self.id) {
            return Decision::Keep;
        }
        let arrives = self.handle.status().silent_for(&Moment::now()) < REST_TIMEOUT;
        let is_needed = self.handle.is_held() || pipeline.requests.is_waited_for(self.id);
        let is_worthwhile = arrives && is_needed && pipeline.requests.is_satisfied(self.id);
        // A rest that was worth waiting for gets one more grace period once it is not.
        if std::mem::replace(&mut self.was_worthwhile, is_worthwhile) || is_worthwhile {
            return Decision::Wait;
        }
        pipeline.is_reading_orphans = false;
        self.handle.status().set_given_up(true);
        let outstanding = pipeline.detach(ServerError::local(
            QUERY_CANCELED,
            "the connection was closed: a statement was given up in the middle of its response",
        ));
        outstanding.map_or(Decision::Keep, Decision::Cancel)
    }
}

impl Orphan<'_, '_> {
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Others who wait read the orphan on the way to their own response, and are not to be kept from the lock.
        ready!(self.waiting.poll_alone(cx));
        let mut pipeline = self.handle.lock();
        for _ in 0..BATCH {
            let current = pipeline.requests.current().map(|current| current.id);
            if pipeline.lost.is_some() || current != Some(self.id) {
                return Poll::Ready(());
            }
            ready!(pipeline.pump());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How many messages are read at most before other tasks have their turn.
const BATCH: usize = 64;

/// The rest of a response is given up if nothing of it has arrived for this long.
const REST_TIMEOUT: Duration = Duration::from_millis(500);
