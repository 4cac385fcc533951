//! The one way to abandon a statement: its response may still arrive for [`GRACE`]; after that, the server is asked to
//! cancel the statement, up to five times for each response, and the session is closed once it has answered, or has not.
//!
//! A session of [`SessionHandle`](super::SessionHandle) is abandoned in `orphan.rs`, one that tokio-postgres drives in
//! `control.rs`. Both decide by [`Abandoned`], and both cancel by [`cancel`].

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{Either, select};

use super::canceller::Canceller;

/// A session with an outstanding response that nobody waits for.
pub(super) trait Abandoned {
    /// Keeps the session's stream open; yields an item for each response but the last, and ends with the last.
    type Outstanding: Stream<Item = ()> + Send + Unpin + 'static;

    /// Resolves once the response is complete. May stay pending instead if [`decide`](Self::decide) reads.
    fn until_complete(&mut self) -> impl Future<Output = ()> + Send;

    /// Decides what to do about a response that has not arrived within [`GRACE`], and does it in the same step: no
    /// response is given up that has just arrived, and nobody sends a statement that would be cancelled.
    fn decide(&mut self) -> Decision<Self::Outstanding>;
}

/// What to do about a response that nobody waits for.
pub(super) enum Decision<O> {
    /// The response is complete: the session stays.
    Keep,
    /// The response may take more time.
    Wait,
    /// The response is late. The session has ended on this side, and its statements are to be cancelled.
    Cancel(O),
}

/// Waits until the response is complete, or until it is given up: then returns what [`cancel`] takes.
pub(super) async fn until_decided<A: Abandoned>(
    mut session: A,
    canceller: &Canceller,
) -> Option<A::Outstanding> {
    loop {
        let is_complete = {
            let complete = pin!(session.until_complete());
            let late = pin!(canceller.sleep(GRACE));
            matches!(select(complete, late).await, Either::Left(_))
        };
        if is_complete {
            return None;
        }
        match session.decide() {
            Decision::Keep => return None,
            Decision::Wait => {}
            Decision::Cancel(outstanding) => return Some(outstanding),
        }
    }
}

/// Cancels the outstanding statements in the background, and closes their stream once the server has answered, or
/// has not for all requests that [`Canceller::cancel_until_answered`] makes.
pub(super) fn cancel(
    canceller: &Canceller,
    outstanding: impl Stream<Item = ()> + Send + Unpin + 'static,
) {
    let background = canceller.clone();
    canceller.spawn(async move { background.cancel_until_answered(outstanding).await });
}

/// How long a response that nobody waits for may take to arrive without costing the session.
const GRACE: Duration = Duration::from_millis(100);
