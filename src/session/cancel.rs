//! Cancel requests that are under way.
//!
//! Neon's proxy closes the socket of a request first and passes the request on afterwards, so that nothing but
//! the answer of a statement that was stopped tells where the request has ended. Until then it would stop
//! whatever runs next.

use std::sync::Arc;

use super::handle::SessionHandle;
use super::pipeline::Pipeline;
use crate::protocol::ServerError;

impl SessionHandle {
    /// Stops in the background what is under way: the request that was to do so has hit what ran in front of it.
    pub(crate) fn cancel_rest(self: &Arc<Self>) {
        let Some(at_work) = self.at_work(self.hands()) else {
            return;
        };
        let (session, canceller) = (Arc::downgrade(self), self.canceller().clone());
        self.canceller().spawn(async move {
            let is_needed = || {
                session
                    .upgrade()
                    .is_some_and(|session| session.begin_cancel(&at_work))
            };
            canceller.cancel_in_time(is_needed).await;
        });
    }

    /// What the server still has to answer, if anything, where the connection is in these hands.
    pub(crate) fn at_work(&self, hands: u64) -> Option<AtWork> {
        let mut pipeline = self.lock();
        pipeline.drain();
        let is_at_work = pipeline.lost.is_none() && pipeline.requests.is_outstanding();
        let at_work = AtWork {
            hands,
            before: pipeline.next_id,
        };
        (is_at_work && self.hands() == hands).then_some(at_work)
    }

    /// Whether any of that is still under way, so that a cancel request can stop it. If so, nothing else is sent
    /// before it is known that the request is spent.
    pub(crate) fn begin_cancel(&self, at_work: &AtWork) -> bool {
        let mut pipeline = self.lock();
        pipeline.drain();
        let current = pipeline.requests.current();
        let is_under_way = pipeline.lost.is_none()
            && self.hands() == at_work.hands
            && current.is_some_and(|request| request.id < at_work.before);
        if is_under_way {
            pipeline.cancels += 1;
        }
        is_under_way
    }
}

/// Requests that are under way, of one who holds the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtWork {
    hands: u64,
    /// The first id that is not among them.
    before: u64,
}

impl Pipeline {
    /// Takes in an error of the server's. A time-out of its own has the same code, so the text decides; one in
    /// another language costs the connection.
    pub(super) fn spend_cancel(&mut self, body: &[u8]) {
        if self.cancels == 0 {
            return;
        }
        if ServerError::parse(body).is_cancelled_by_request() {
            self.cancels -= 1;
        }
    }

    /// Ends the session where everything has been answered and a request may still be under way.
    pub(super) fn retire_for_cancel(&mut self) {
        if self.cancels > 0 && !self.requests.is_outstanding() {
            self.lose(ServerError::local(
                "08006",
                "the connection was closed: a cancel request may still be under way, and would stop the next \
                 statement",
            ));
        }
    }
}
