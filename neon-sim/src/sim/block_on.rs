//! For tests that are not asynchronous.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::Handle;

use super::home::home;

/// Runs a future to its end on this thread, for tests that are not asynchronous.
///
/// Whatever of tokio's it uses belongs to a small runtime of this crate's.
///
/// ```no_run
/// use neon_sim::{Suspension, TestDatabase, block_on};
///
/// # fn test() -> Result<(), neon_sim::Error> {
/// let database = block_on(TestDatabase::new())?;
/// block_on(database.suspend(Suspension::Normal));
/// # Ok(())
/// # }
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    // Without a runtime, what needs one says so.
    let home = home().ok();
    let _context = home.as_ref().map(Handle::enter);
    let parked = Arc::new(Parked {
        thread: thread::current(),
        is_woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&parked));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // What else parks this thread while the future is polled may take its token, but not the flag.
            Poll::Pending => {
                while !parked.is_woken.swap(false, Ordering::Acquire) {
                    thread::park();
                }
            }
        }
    }
}

/// A thread that waits for its future.
struct Parked {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_wake_is_not_lost_to_a_call_within() {
        let (done, has_ended) = mpsc::channel();
        // Only a call that hangs takes so long.
        let hang = Duration::from_secs(60);
        thread::spawn(move || {
            let (send, mut receive) = oneshot::channel();
            let mut send = Some(send);
            let outer = poll_fn(|context| {
                let polled = pin!(&mut receive).poll(context);
                if let Some(send) = send.take() {
                    // It parks once the outer call has been woken.
                    block_on(async {
                        send.send(()).unwrap();
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    });
                }
                polled
            });
            done.send(block_on(outer)).unwrap();
        });
        assert_eq!(has_ended.recv_timeout(hang).unwrap(), Ok(()));
    }
}
