//! [`Timer`]: bounds waits, also on a runtime without timers.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tokio::task::unconstrained;

/// The clock that bounds a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The runtime's own timers.
    Runtime,
    /// A thread for each wait. Diesel's wrappers that block on one connection run a runtime without
    /// timers, on which tokio's `sleep` panics.
    Thread,
}

impl Timer {
    /// Waits for a duration; `Duration::MAX` means for ever. Takes the timers of the runtime that it is called on.
    pub(crate) fn sleep(self, duration: Duration) -> impl Future<Output = ()> + Send {
        // What is bounded may use its task's whole budget each time that it is polled, and leave none for its bound.
        unconstrained(match self {
            Self::Runtime => Either::Left(tokio::time::sleep(duration)),
            Self::Thread => Either::Right(sleep_on_thread(duration)),
        })
    }

    /// Waits for `future`. Returns `None` if the time is up first.
    pub(crate) async fn timeout<F: Future>(
        self,
        duration: Duration,
        future: F,
    ) -> Option<F::Output> {
        match select(pin!(future), pin!(self.sleep(duration))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

async fn sleep_on_thread(duration: Duration) {
    let (over, elapsed) = oneshot::channel::<()>();
    let (_asleep, left) = mpsc::channel::<()>();
    let waits = move || {
        // Returns early if the waiting future is dropped.
        let _ = left.recv_timeout(duration);
        let _ = over.send(());
    };
    match thread::Builder::new()
        .name("diesel-neon-timer".to_owned())
        .spawn(waits)
    {
        Ok(_) => {
            let _ = elapsed.await;
        }
        // Without a thread the wait is unbounded, which is better than a bound of zero.
        Err(_) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_bounds_a_wait_where_the_runtime_has_no_timers() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let moment = Duration::from_millis(20);
            let began = Instant::now();
            assert!(
                Timer::Thread
                    .timeout(moment, pending::<()>())
                    .await
                    .is_none()
            );
            assert!(began.elapsed() >= moment);
            assert_eq!(
                Timer::Thread.timeout(Duration::MAX, async { 1 }).await,
                Some(1)
            );
        });
    }

    #[tokio::test]
    async fn what_never_waits_is_bounded_too() {
        for timer in [Timer::Runtime, Timer::Thread] {
            let busy = async {
                loop {
                    tokio::task::consume_budget().await;
                }
            };
            let bounded = timer.timeout::<std::pin::Pin<Box<dyn Future<Output = ()>>>>(
                Duration::from_millis(20),
                Box::pin(busy),
            );
            assert!(bounded.await.is_none(), "{timer:?}");
        }
    }
}
