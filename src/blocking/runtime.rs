//! [`Runtime`]: the one runtime of all synchronous connections, and how a thread waits for a future.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::{Builder, EnterGuard, Handle, RuntimeFlavor};
use tokio::task::{block_in_place, unconstrained};

use crate::util::lock;

/// Waits on this thread for a future of this crate that has no blocking form, such as
/// [`Migrator::run_pending`](crate::migration::Migrator::run_pending) or
/// [`CancelToken::cancel`](crate::CancelToken::cancel).
///
/// Unlike a runtime's own `block_on`, it may be called from anywhere, also inside of another runtime. The future runs in
/// the context of the runtime of [this module](crate::blocking).
///
/// ```no_run
/// use diesel_neon::blocking;
/// use diesel_neon::migration::Migrator;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let migrator = Migrator::from_env(diesel_neon::migration::folder(None)?)?;
/// blocking::block_on(migrator.run_pending())??;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The system's error if the runtime, or its thread, cannot be made.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Runtime::get()?.block_on(future))
}

/// The one runtime, which never ends. Its only worker waits for sockets and timers, and runs the pools' background
/// tasks; the futures that callers wait for are polled on their own threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runtime(&'static tokio::runtime::Runtime);

static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();

thread_local! {
    /// Whether the thread belongs to the runtime, and drives no other.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

impl Runtime {
    /// Returns the runtime, which the first call makes.
    pub(super) fn get() -> io::Result<Self> {
        static MAKING: Mutex<()> = Mutex::new(());
        if let Some(runtime) = RUNTIME.get() {
            return Ok(Self(runtime));
        }
        let _only_one = lock(&MAKING);
        let made = match RUNTIME.get() {
            Some(runtime) => return Ok(Self(runtime)),
            None => make()?,
        };
        Ok(Self(RUNTIME.get_or_init(|| made)))
    }

    /// Has what is spawned, or registered with a driver, go to this runtime until the guard is dropped. Returns `None`
    /// at the end of a thread, where nothing can be entered any more.
    pub(super) fn enter(self) -> Option<EnterGuard<'static>> {
        let is_ending = Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
        (!is_ending).then(|| self.0.enter())
    }

    /// Polls a future on this thread until it is ready.
    pub(super) fn block_on<F: Future>(self, future: F) -> F::Output {
        let is_worker = is_on_worker();
        // Calls within this one find this runtime entered, and must not take the thread for the worker because of that.
        let _restored = Restore(IS_OURS.replace(is_worker));
        let _entered = self.enter();
        // The budget of a task around this call would never be renewed.
        let future = unconstrained(future);
        match is_worker {
            // Hooks and instrumentation may come here: another thread takes the worker's place meanwhile.
            true => block_in_place(|| park_until(future)),
            false => park_until(future),
        }
    }
}

/// Returns whether the call may come from the runtime's own worker. A thread of the runtime's that drives another runtime, of
/// one thread, is not the worker, and tokio lets no thread take its place there.
fn is_on_worker() -> bool {
    let is_multi = |current: Handle| current.runtime_flavor() == RuntimeFlavor::MultiThread;
    IS_OURS.get() && Handle::try_current().is_ok_and(is_multi)
}

/// Restores [`IS_OURS`].
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        IS_OURS.set(self.0);
    }
}

/// Makes the runtime. Tokio panics where the system has no thread for a worker, which is an error here.
fn make() -> io::Result<tokio::runtime::Runtime> {
    let build = || {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("diesel-neon")
            .on_thread_start(|| IS_OURS.set(true))
            .enable_all()
            .build()
    };
    let maker = thread::Builder::new().spawn(build)?;
    let no_thread = |_| io::Error::other("the system has no thread for the runtime");
    maker.join().map_err(no_thread)?
}

/// Polls a future until it is ready; the thread sleeps in between. Calls may be nested.
fn park_until<F: Future>(future: F) -> F::Output {
    let parker = Arc::new(Parker {
        thread: thread::current(),
        is_woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&parker));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        // A nested call may have taken the thread's token, but not the flag.
        while !parker.is_woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Wakes a thread.
struct Parker {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_wake_is_not_lost_to_a_nested_call() {
        let runtime = Runtime::get().unwrap();
        let (send, mut receive) = oneshot::channel();
        let mut send = Some(send);
        let outer = poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut receive).poll(cx);
            if let Some(send) = send.take() {
                // The inner call parks and is woken while the outer one's waker is called.
                runtime.block_on(async {
                    send.send(1).unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                });
            }
            polled
        });
        assert_eq!(runtime.block_on(outer), Ok(1));
    }

    #[test]
    fn the_worker_may_wait_for_its_own_runtime() {
        let runtime = Runtime::get().unwrap();
        let nested = async move {
            let pause = tokio::time::sleep(Duration::from_millis(5));
            runtime.block_on(async { tokio::spawn(pause).await.unwrap() });
        };
        let spawned = runtime.block_on(async { tokio::spawn(nested).await });
        spawned.unwrap();
    }

    #[test]
    fn a_budget_that_is_used_up_does_not_stop_a_thread() {
        let outer = Builder::new_current_thread().build().unwrap();
        outer.block_on(async {
            for _ in 0..1000 {
                block_on(tokio::task::consume_budget()).unwrap();
            }
        });
    }

    #[test]
    fn all_callers_share_one_runtime() {
        let threads = (0..8).map(|_| thread::spawn(|| Runtime::get().unwrap().0.handle().id()));
        let mut ids: Vec<_> = threads.collect::<Vec<_>>().into_iter().collect();
        let first = ids.pop().unwrap().join().unwrap();
        for id in ids {
            assert_eq!(id.join().unwrap(), first);
        }
    }
}
