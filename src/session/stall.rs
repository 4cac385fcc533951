//! [`Stall`]: bounds the wait for a response behind rows that nobody reads.

use std::fmt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::canceller::Canceller;

/// Bounds how long the response in front may stay unread. A task that awaits a statement while it holds the unread rows
/// of an earlier one would wait for ever; one whose neighbour reads slowly may wait on.
#[derive(Default)]
pub(super) struct Stall(Option<Box<(u64, BoxFuture<'static, ()>)>>);

impl Stall {
    /// Resolves if nothing of the response in front has been taken for [`STALL_TIMEOUT`]. `taken` counts the messages
    /// taken so far, and is None while there is room to read ahead.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        canceller: &Canceller,
        taken: Option<u64>,
    ) -> Poll<()> {
        let Some(taken) = taken else {
            self.0 = None;
            return Poll::Pending;
        };
        loop {
            match self.0.as_deref_mut() {
                Some((known, late)) if *known == taken => {
                    ready!(late.poll_unpin(cx));
                    self.0 = None;
                    return Poll::Ready(());
                }
                _ => {
                    let canceller = canceller.clone();
                    let late = async move { canceller.sleep(STALL_TIMEOUT).await };
                    self.0 = Some(Box::new((taken, late.boxed())));
                }
            }
        }
    }
}

impl fmt::Debug for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stall").field(&self.0.is_some()).finish()
    }
}

/// How long the rows in front may stay unread: their owner is taken to wait for a response behind them.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);
