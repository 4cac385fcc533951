//! What becomes of answers that nobody waits for any more.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};

use super::drain::DrainStream;
use super::handle::SessionHandle;
use super::pending::Owner;
use super::waiters::Waiting;
use crate::protocol::ServerError;
use crate::util::clock::Moment;

/// What is done about an answer that nobody waits for.
enum Verdict {
    /// The answer is complete.
    Answered,
    /// The answer may take its time.
    Waits,
    /// The answer is late, and the session has ended.
    GivenUp(Option<DrainStream>),
}

impl SessionHandle {
    /// Takes note that nobody waits for the answer any more, and reads what has arrived of it. The rest of an answer
    /// that was given up has a moment to come, and then costs the connection; behind a `tail`, whose caller has its
    /// result, the rest costs time only, as long as the connection is held and the rest comes.
    pub(super) fn abandon(self: &Arc<Self>, id: u64, tail: bool) {
        let mut pipeline = self.lock();
        if pipeline.requests.disown(id, tail) {
            pipeline.refuse_to_copy(true);
        }
        pipeline.drain();
        if pipeline.lost.is_some() || pipeline.abandoning || !pipeline.requests.has_orphan() {
            return;
        }
        pipeline.abandoning = true;
        drop(pipeline);
        let handle = Arc::clone(self);
        self.canceller().spawn(async move { handle.settle().await });
    }

    async fn settle(self: Arc<Self>) {
        let mut waiting = Waiting::new(self.waiters());
        loop {
            // As long as somebody waits for what is in front of it, the answer is not late.
            let orphan = poll_fn(|cx| self.poll_orphan(cx, &mut waiting)).await;
            let Some(orphan) = orphan else {
                return;
            };
            let mut waited = false;
            loop {
                let answered = pin!(poll_fn(|cx| self.poll_answered(cx, &mut waiting, orphan)));
                let late = pin!(self.canceller().sleep(GRACE));
                if let Either::Left(_) = select(answered, late).await {
                    break;
                }
                match self.judge(orphan, &mut waited) {
                    Verdict::Answered => break,
                    Verdict::Waits => {}
                    Verdict::GivenUp(remains) => return self.cancel(remains),
                }
            }
        }
    }

    /// Decides on an answer and acts on it under one lock, so that none is given up that has just come. An answer
    /// that was worth waiting for has one more moment once it is not.
    fn judge(&self, orphan: u64, waited: &mut bool) -> Verdict {
        let mut pipeline = self.lock();
        pipeline.drain();
        let current = pipeline.requests.current().map(|current| current.id);
        if pipeline.lost.is_some() || current != Some(orphan) {
            return Verdict::Answered;
        }
        let comes = self.status().quiet_at(&Moment::now()) < SILENCE;
        let wanted = self.is_held() || pipeline.requests.is_waited_for(orphan);
        let worth = comes && wanted && pipeline.requests.has_served(orphan);
        if std::mem::replace(waited, worth) || worth {
            return Verdict::Waits;
        }
        pipeline.abandoning = false;
        Verdict::GivenUp(pipeline.give_up(ServerError::local(
            "57014",
            "the connection was closed: a statement was given up in the middle of its answer",
        )))
    }

    fn poll_orphan(&self, cx: &mut Context<'_>, waiting: &mut Waiting<'_>) -> Poll<Option<u64>> {
        let mut pipeline = self.lock();
        if pipeline.lost.is_some() || !pipeline.requests.has_orphan() {
            pipeline.abandoning = false;
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

    fn poll_answered(&self, cx: &mut Context<'_>, waiting: &mut Waiting<'_>, id: u64) -> Poll<()> {
        if self.waiters().count() > 1 {
            // Whoever else waits reads what is in front, and must not be kept out.
            return Poll::Pending;
        }
        let mut pipeline = self.lock();
        for _ in 0..BATCH {
            let waits = pipeline
                .requests
                .current()
                .is_some_and(|current| current.id == id);
            if pipeline.lost.is_some() || !waits {
                return Poll::Ready(());
            }
            waiting.register(cx);
            ready!(pipeline.pump());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How many messages are read at most before others have their turn.
const BATCH: usize = 64;

/// For this long an answer that nobody wants may still come in without costing the connection.
const GRACE: Duration = Duration::from_millis(100);

/// An answer of which nothing has come for this long may as well never end.
const SILENCE: Duration = Duration::from_millis(500);
