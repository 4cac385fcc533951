//! [`either`]: two ways to one server.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::race::AttemptFailure;
use super::timer::Timer;

/// Tries the first way, and the second beside it if the first fails before the server has said anything, or has not
/// `opened` within [`HEAD_START`]. What the server itself says holds for both ways, and ends them.
pub(super) async fn either<T, E: AttemptFailure>(
    first: impl Future<Output = Result<T, E>>,
    opened: impl Fn() -> bool,
    timer: Timer,
    second: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let (mut first, second) = (pin!(first), pin!(second));
    let head_start = async {
        timer.sleep(HEAD_START).await;
        if opened() {
            pending::<()>().await;
        }
    };
    match select(first.as_mut(), pin!(head_start)).await {
        Either::Left((Err(blocked), _)) if blocked.is_of_way() => {
            return second.await.map_err(|other| telling(blocked, other));
        }
        Either::Left((done, _)) => return done,
        Either::Right(_) => {}
    }
    match select(first, second).await {
        Either::Left((Err(blocked), second)) if blocked.is_of_way() => {
            second.await.map_err(|other| telling(blocked, other))
        }
        Either::Right((Err(blocked), first)) if blocked.is_of_way() => {
            first.await.map_err(|other| telling(other, blocked))
        }
        Either::Left((done, _)) | Either::Right((done, _)) => done,
    }
}

/// Returns the failure to go by if both ways have failed: the server's own, else one that may pass, so that two ways are
/// not given up sooner than one.
fn telling<E: AttemptFailure>(first: E, second: E) -> E {
    let rank = |failure: &E| (!failure.is_of_way(), failure.may_pass(), failure.weight());
    match rank(&second) > rank(&first) {
        true => second,
        false => first,
    }
}

/// How long TCP may be silent before the WebSocket is tried beside it: longer than a connect takes that loses a packet.
const HEAD_START: Duration = Duration::from_millis(1200);
