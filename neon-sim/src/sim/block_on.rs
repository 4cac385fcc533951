//! For tests that are not asynchronous.

use std::pin::pin;
use std::sync::Arc;
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
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A thread that waits for its future.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
