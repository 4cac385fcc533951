//! [`Stall`]: how long to wait behind rows that nobody reads.

use std::fmt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::canceller::Canceller;

/// Waits as long as what is in front is read, however slowly. Whoever awaits a statement before the rows of an
/// earlier one that it holds itself would wait for ever.
#[derive(Default)]
pub(super) struct Stall(Option<(u64, BoxFuture<'static, ()>)>);

impl Stall {
    /// Ready where nothing has been read in front for too long. `read` is how much has been, if there is no
    /// more room to read ahead.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        canceller: &Canceller,
        read: Option<u64>,
    ) -> Poll<()> {
        let Some(read) = read else {
            self.0 = None;
            return Poll::Pending;
        };
        loop {
            match &mut self.0 {
                Some((known, late)) if *known == read => {
                    ready!(late.poll_unpin(cx));
                    self.0 = None;
                    return Poll::Ready(());
                }
                stalled => {
                    let canceller = canceller.clone();
                    let late = async move { canceller.sleep(PATIENCE).await };
                    *stalled = Some((read, late.boxed()));
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

/// Who has not read a row for this long is taken to wait for somebody behind it.
const PATIENCE: Duration = Duration::from_secs(3);
