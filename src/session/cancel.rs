//! Cancel requests of a [`CancelToken`](crate::CancelToken), until their effect is known.
//!
//! Neon's proxy closes the socket of a cancel request before it passes the request on. Only the error of a cancelled
//! statement tells that the request has arrived; until then, the request could cancel the next statement instead.

use std::sync::Arc;

use super::handle::SessionHandle;
use super::pipeline::Pipeline;
use crate::protocol::ServerError;

impl SessionHandle {
    /// Cancels the requests in flight, in the background: a cancel request that was meant for them has hit the one in
    /// front.
    pub(crate) fn cancel_rest(self: &Arc<Self>) {
        let Some(in_flight) = self.in_flight(self.holder()) else {
            return;
        };
        let (session, canceller) = (Arc::downgrade(self), self.canceller().clone());
        self.canceller().spawn(async move {
            let is_needed = || {
                session
                    .upgrade()
                    .is_some_and(|session| session.begin_cancel(&in_flight))
            };
            canceller.cancel_in_time(is_needed).await;
        });
    }

    /// Returns the requests that are in flight, if there are any and `holder` still holds the connection.
    pub(crate) fn in_flight(&self, holder: u64) -> Option<InFlight> {
        let mut pipeline = self.lock();
        pipeline.read_available();
        let is_outstanding = pipeline.lost.is_none() && pipeline.requests.is_outstanding();
        let in_flight = InFlight {
            holder,
            end: pipeline.next_id,
        };
        (is_outstanding && self.holder() == holder).then_some(in_flight)
    }

    /// Begins to cancel the requests, unless they are complete; returns whether a cancel request is to be sent. If so,
    /// no other request is sent until it is known that the cancel request has arrived.
    pub(crate) fn begin_cancel(&self, in_flight: &InFlight) -> bool {
        let mut pipeline = self.lock();
        pipeline.read_available();
        let current = pipeline.requests.current();
        let is_outstanding = pipeline.lost.is_none()
            && self.holder() == in_flight.holder
            && current.is_some_and(|request| request.id < in_flight.end);
        if is_outstanding {
            pipeline.cancels += 1;
        }
        is_outstanding
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

    /// Ends the session if every request is answered and a cancel request may still be under way.
    pub(super) fn end_if_cancel_pending(&mut self) {
        if self.cancels > 0 && !self.requests.is_outstanding() {
            self.set_lost(ServerError::local(
                "08006",
                "the connection was closed: a cancel request may still be under way, and would stop the next \
                 statement",
            ));
        }
    }
}
