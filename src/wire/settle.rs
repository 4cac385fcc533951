//! What becomes of answers that nobody waits for any more.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};

use super::error::ServerError;
use super::exchange::Owner;
use super::link::Link;
use super::waiters::Waiting;
use crate::clock::Moment;

impl Link {
    /// Nobody waits for the answer any more. What has arrived is read at once; the rest has a moment to
    /// come, and then costs the connection.
    pub(super) fn abandon(self: &Arc<Self>, id: u64, tail: bool) {
        let mut engine = self.lock();
        engine.exchanges.disown(id, tail);
        engine.drain();
        if engine.lost.is_some() || engine.settling || !engine.exchanges.has_orphan() {
            return;
        }
        engine.settling = true;
        drop(engine);
        let link = Arc::clone(self);
        self.canceller().spawn(async move { link.settle().await });
    }

    async fn settle(self: Arc<Self>) {
        loop {
            let mut waiting = Waiting::new(self.waiters());
            // As long as somebody waits for what is in front of it, the answer is not late.
            let orphan = poll_fn(|cx| self.poll_orphan(cx, &mut waiting)).await;
            let Some(orphan) = orphan else {
                return;
            };
            let mut answered = pin!(poll_fn(|cx| self.poll_answered(cx, &mut waiting, orphan)));
            loop {
                let late = pin!(self.canceller().sleep(GRACE));
                if let Either::Left(_) = select(&mut answered, late).await {
                    break;
                }
                if !self.is_worth_waiting_for(orphan) {
                    self.give_up();
                    return;
                }
            }
        }
    }

    /// Whoever waits behind the rest of an answer would rather wait than lose the session, while it comes.
    fn is_worth_waiting_for(&self, orphan: u64) -> bool {
        self.lock().exchanges.is_waited_for(orphan)
            && self.observed().quiet_at(&Moment::now()) < SILENCE
    }

    fn give_up(&self) {
        let mut engine = self.lock();
        engine.settling = false;
        let remains = engine.give_up(ServerError::local(
            "57014",
            "the connection was closed: a statement was given up in the middle of its answer",
        ));
        drop(engine);
        self.cancel(remains);
    }

    fn poll_orphan(&self, cx: &mut Context<'_>, waiting: &mut Waiting<'_>) -> Poll<Option<u64>> {
        let mut engine = self.lock();
        if engine.lost.is_some() || !engine.exchanges.has_orphan() {
            engine.settling = false;
            return Poll::Ready(None);
        }
        match engine.exchanges.current() {
            Some(current) if current.owner != Owner::Waits => Poll::Ready(Some(current.id)),
            _ => {
                waiting.register(cx);
                Poll::Pending
            }
        }
    }

    fn poll_answered(&self, cx: &mut Context<'_>, waiting: &mut Waiting<'_>, id: u64) -> Poll<()> {
        let mut engine = self.lock();
        loop {
            let waits = engine
                .exchanges
                .current()
                .is_some_and(|current| current.id == id);
            if engine.lost.is_some() || !waits {
                return Poll::Ready(());
            }
            waiting.register(cx);
            ready!(engine.pump());
        }
    }
}

/// For this long an answer that nobody wants may still come in without costing the connection.
const GRACE: Duration = Duration::from_millis(100);

/// An answer of which nothing has come for this long may as well never end.
const SILENCE: Duration = Duration::from_millis(500);
