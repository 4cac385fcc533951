//! [`CheckoutQueue`]: who is served first. Callers are, in the order in which they came.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::stats::Stats;

/// Admits as many callers as there may be connections, first come, first served. bb8 alone would wake those that wait
/// in no particular order.
#[derive(Debug)]
pub(crate) struct CheckoutQueue {
    permits: Semaphore,
    waiting: AtomicUsize,
    stats: Arc<Stats>,
}

/// Why a caller is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    TooLate,
}

impl CheckoutQueue {
    pub(crate) fn new(permits: u32, stats: Arc<Stats>) -> Self {
        Self {
            permits: Semaphore::new(permits as usize),
            waiting: AtomicUsize::new(0),
            stats,
        }
    }

    /// Refuses every caller from now on.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    /// Returns how many callers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a caller as waiting until the result is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.stats.metrics.started_waiting();
        Waiting(self)
    }
}

/// The right to one connection. When it is dropped, the next caller has it.
#[derive(Debug)]
pub(crate) struct CheckoutPermit<'a>(Cow<'a, Arc<CheckoutQueue>>);

impl<'a> CheckoutPermit<'a> {
    /// Takes a permit, if one is free and nobody waits for it.
    pub(crate) fn try_take(
        queue: Cow<'a, Arc<CheckoutQueue>>,
    ) -> Result<Self, Cow<'a, Arc<CheckoutQueue>>> {
        let taken = queue.permits.try_acquire().map(SemaphorePermit::forget);
        match taken {
            Ok(()) => Ok(Self(queue)),
            Err(_) => Err(queue),
        }
    }

    /// Waits until all callers that came before have had a permit, and takes one.
    pub(crate) async fn take(
        queue: Cow<'a, Arc<CheckoutQueue>>,
        deadline: Instant,
    ) -> Result<Self, Refused> {
        match timeout_at(deadline, queue.permits.acquire()).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err(Refused::Closed),
            Err(_) => return Err(Refused::TooLate),
        }
        Ok(Self(queue))
    }
}

impl Drop for CheckoutPermit<'_> {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
    }
}

/// A caller that waits, however that ends.
pub(crate) struct Waiting<'a>(&'a CheckoutQueue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.metrics.stopped_waiting();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::super::metrics::Metrics;
    use super::*;
    use crate::policy::Policy;
    use crate::url::DatabaseUrl;

    type Caller = Pin<Box<dyn Future<Output = Result<CheckoutPermit<'static>, Refused>>>>;

    fn queue(permits: u32) -> Arc<CheckoutQueue> {
        let url = DatabaseUrl::parse("postgresql://u@localhost/d").unwrap();
        let stats = Stats::new(Metrics::new(&url, &Policy::default()));
        Arc::new(CheckoutQueue::new(permits, Arc::new(stats)))
    }

    /// Returns a caller that waits in the queue.
    fn caller(queue: &Arc<CheckoutQueue>) -> Caller {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let queue = Arc::clone(queue);
        let mut caller: Caller = Box::pin(async move {
            let _waiting = queue.wait();
            CheckoutPermit::take(Cow::Owned(Arc::clone(&queue)), deadline).await
        });
        assert!(caller.as_mut().now_or_never().is_none(), "it is served");
        caller
    }

    fn try_take(queue: &Arc<CheckoutQueue>) -> Option<CheckoutPermit<'static>> {
        CheckoutPermit::try_take(Cow::Owned(Arc::clone(queue))).ok()
    }

    #[tokio::test]
    async fn callers_are_served_in_the_order_in_which_they_came() {
        let queue = queue(2);
        let (first, second) = (try_take(&queue).unwrap(), try_take(&queue).unwrap());
        let mut callers: Vec<_> = (0..4).map(|_| caller(&queue)).collect();
        assert_eq!(queue.waiting(), 4);
        let mut held = vec![second];
        drop(first);
        for served in 0..callers.len() {
            // The last caller asks first.
            let polled: Vec<_> = callers
                .iter_mut()
                .rev()
                .map(|caller| caller.now_or_never())
                .collect();
            let admitted: Vec<_> = polled.into_iter().flatten().collect();
            assert_eq!(admitted.len(), 1);
            held.extend(admitted.into_iter().map(Result::unwrap));
            drop(callers.remove(0));
            assert_eq!(queue.waiting(), 3 - served);
            held.remove(0);
        }
    }

    #[tokio::test]
    async fn a_new_caller_does_not_overtake_one_that_waits() {
        let queue = queue(1);
        let held = try_take(&queue).unwrap();
        let mut waiting = caller(&queue);
        drop(held);
        assert!(try_take(&queue).is_none());
        assert!(waiting.as_mut().now_or_never().unwrap().is_ok());
        assert!(try_take(&queue).is_some());
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_its_place_to_the_next() {
        let queue = queue(1);
        let held = try_take(&queue).unwrap();
        let (first, mut second) = (caller(&queue), caller(&queue));
        // With and without a permit that is meant for it.
        drop(held);
        drop(first);
        let held = second.as_mut().now_or_never().unwrap().unwrap();
        let (first, mut second) = (caller(&queue), caller(&queue));
        drop(first);
        assert_eq!(queue.waiting(), 1);
        drop(held);
        assert!(second.as_mut().now_or_never().unwrap().is_ok());
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test]
    async fn a_caller_whose_deadline_passes_is_refused_and_so_are_all_when_the_queue_closes() {
        let queue = queue(1);
        let held = try_take(&queue).unwrap();
        let late = CheckoutPermit::take(Cow::Borrowed(&queue), Instant::now()).await;
        assert_eq!(late.unwrap_err(), Refused::TooLate);
        let mut waiting = caller(&queue);
        queue.close();
        let refused = waiting.as_mut().now_or_never().unwrap();
        assert_eq!(refused.unwrap_err(), Refused::Closed);
        drop(held);
        assert!(try_take(&queue).is_none());
        assert_eq!(queue.waiting(), 0);
    }
}
