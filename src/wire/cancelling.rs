//! Cancel requests that are under way.
//!
//! Neon's proxy closes the socket of a request first and passes the request on afterwards, so that nothing but
//! the answer of a statement that was stopped tells where the request has ended. Until then it would stop
//! whatever runs next.

use super::engine::Engine;
use super::error::ServerError;
use super::link::Link;

impl Link {
    /// Whether something is under way that a cancel request can stop. If so, nothing else is sent before it is
    /// known that the request is spent.
    pub(crate) fn begin_cancel(&self) -> bool {
        let mut engine = self.lock();
        let at_work = engine.is_at_work();
        if at_work {
            engine.cancels += 1;
        }
        at_work
    }

    /// Whether the server still has to answer something.
    pub(crate) fn is_at_work(&self) -> bool {
        self.lock().is_at_work()
    }
}

impl Engine {
    fn is_at_work(&mut self) -> bool {
        self.drain();
        self.lost.is_none() && self.exchanges.is_outstanding()
    }

    /// Takes in an error of the server's. A time-out of its own has the same code, so the text decides; one in
    /// another language costs the connection.
    pub(super) fn spend_cancel(&mut self, body: &[u8]) {
        if self.cancels == 0 {
            return;
        }
        let error = ServerError::parse(body);
        if error.code == "57014" && error.message == CANCELLED {
            self.cancels -= 1;
        }
    }

    /// Ends the session where everything has been answered and a request may still be under way.
    pub(super) fn retire_for_cancel(&mut self) {
        if self.cancels > 0 && !self.exchanges.is_outstanding() {
            self.lose(ServerError::local(
                "08006",
                "the connection was closed: a cancel request may still be under way, and would stop the next \
                 statement",
            ));
        }
    }
}

const CANCELLED: &str = "canceling statement due to user request";
