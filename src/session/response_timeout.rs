//! [`ResponseTimer`]: bounds the wait for a server that sends nothing while a response is outstanding.

use std::fmt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::canceller::Canceller;
use super::status::SessionStatus;
use crate::protocol::ServerError;
use crate::util::clock::Moment;

/// Measures how long the server sends nothing while a response is waited for. Bytes of any response count as activity,
/// and so do those of a request that is still being written: the server cannot answer before.
#[derive(Default)]
pub(super) struct ResponseTimer(Option<Box<Wait>>);

/// When a wait began, and when it is looked at again. Few statements have one, and a response stays small without.
type Wait = (Moment, BoxFuture<'static, ()>);

impl ResponseTimer {
    /// Resolves once the server has sent nothing for `limit`, and begins anew then.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        status: &SessionStatus,
        canceller: &Canceller,
    ) -> Poll<()> {
        let sleep = |moment| {
            let canceller = canceller.clone();
            async move { canceller.sleep(moment).await }.boxed()
        };
        loop {
            let Some((since, alarm)) = self.0.as_deref_mut() else {
                self.0 = Some(Box::new((Moment::now(), sleep(limit))));
                continue;
            };
            ready!(alarm.poll_unpin(cx));
            let now = Moment::now();
            let silent_for = status.still_for(&now).min(now.since(since));
            match limit.saturating_sub(silent_for) {
                Duration::ZERO => {
                    self.0 = None;
                    return Poll::Ready(());
                }
                left => *alarm = sleep(left),
            }
        }
    }

    /// Ends the wait.
    #[inline]
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

/// Returns the error that a session ends with if its server was silent for `limit`.
pub(super) fn response_timeout(limit: Duration) -> ServerError {
    let message = format!(
        "no response: the server sent nothing for {limit:?} (response_timeout), so the connection was closed; the \
         statement may have run"
    );
    ServerError {
        routine: Some(ServerError::RESPONSE_TIMEOUT.to_owned()),
        ..ServerError::local("08006", &message)
    }
}

impl fmt::Debug for ResponseTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseTimer")
            .field(&self.0.is_some())
            .finish()
    }
}
