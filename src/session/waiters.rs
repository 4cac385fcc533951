//! [`Waiters`]: the futures that wait on a [`SessionHandle`](super::SessionHandle), and how they are woken.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use crate::util::lock;

/// The futures that wait on one handle.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    wakers: Mutex<Slab<Waker>>,
    /// Whether the stream had nothing to read, and has woken nobody since.
    is_exhausted: AtomicBool,
    /// Counts the waiters, those included that have not registered.
    count: AtomicUsize,
    /// Whether one of the waiters waits until it is alone.
    is_deferring: AtomicBool,
}

impl Waiters {
    /// Sets whether the stream has nothing more to read until it wakes the waiters.
    pub(super) fn set_exhausted(&self, is_exhausted: bool) {
        self.is_exhausted.store(is_exhausted, Ordering::Release);
    }

    /// Returns whether reading the stream would yield nothing.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_exhausted.load(Ordering::Acquire)
    }

    /// Wakes the waiters. They may lock the pipeline at once.
    pub(super) fn wake_all(&self) {
        let wakers = self.lock();
        let mut all = wakers.iter().map(|(_, waker)| waker.clone());
        // Mostly there is one waiter, and nothing to allocate.
        let (first, others) = (all.next(), all.collect::<Vec<_>>());
        // Outside the lock: a waker may run any code.
        drop(wakers);
        first.into_iter().chain(others).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Waker>> {
        lock(&self.wakers)
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set_exhausted(false);
        self.wake_all();
    }
}

/// A waiter, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    waiters: &'a Waiters,
    key: Option<usize>,
    /// How many messages of the response in front had been taken when there was no room to read ahead.
    pub(super) stalled: Option<u64>,
    /// Whether the request waits for one moment, for others to be written with it.
    pub(super) is_held_back: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(waiters: &'a Waiters) -> Self {
        waiters.count.fetch_add(1, Ordering::SeqCst);
        Self {
            waiters,
            key: None,
            stalled: None,
            is_held_back: false,
        }
    }

    /// Registers the waker of `cx`: from now on no wake is lost.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        let waker = cx.waker();
        let mut wakers = self.waiters.lock();
        let known = self.key.and_then(|key| wakers.get_mut(key));
        let old = match known {
            Some(known) if known.will_wake(waker) => None,
            Some(known) => Some(mem::replace(known, waker.clone())),
            None => {
                self.key = Some(wakers.insert(waker.clone()));
                None
            }
        };
        drop(wakers);
        drop(old);
    }
}

impl Waiting<'_> {
    /// Resolves once nobody else waits. Registers first, so that a later `Pending` of the caller is woken too.
    pub(super) fn poll_alone(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.register(cx);
        let waiters = self.waiters;
        // Set before the count is read: the last other one to leave sees the flag, or is not counted any more.
        waiters.is_deferring.store(true, Ordering::SeqCst);
        if waiters.count.load(Ordering::SeqCst) > 1 {
            return Poll::Pending;
        }
        waiters.is_deferring.store(false, Ordering::SeqCst);
        Poll::Ready(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut wakers = self.waiters.lock();
            let gone = wakers.try_remove(key);
            if wakers.is_empty() && wakers.capacity() > KEPT {
                *wakers = Slab::new();
            }
            drop(wakers);
            drop(gone);
        }
        let left = self.waiters.count.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 1 && self.waiters.is_deferring.load(Ordering::SeqCst) {
            self.waiters.wake_all();
        }
    }
}

/// For how many waiters the memory is kept when all have gone.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the lock when it is woken and when it is dropped.
    struct Locking {
        waiters: Arc<Waiters>,
        woken: AtomicBool,
    }

    impl Wake for Locking {
        fn wake(self: Arc<Self>) {
            assert!(self.waiters.wakers.try_lock().is_ok());
            self.woken.store(true, Ordering::Release);
        }
    }

    impl Drop for Locking {
        fn drop(&mut self) {
            assert!(self.waiters.wakers.try_lock().is_ok());
        }
    }

    #[test]
    fn a_waiter_that_waits_to_be_alone_is_woken_when_the_others_have_left() {
        struct Woken(AtomicBool);

        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Release);
            }
        }

        let waiters = Waiters::default();
        let mut waiting = Waiting::new(&waiters);
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        assert!(waiting.poll_alone(&cx).is_ready());
        for others in [1, 2] {
            let others: Vec<_> = (0..others).map(|_| Waiting::new(&waiters)).collect();
            assert!(waiting.poll_alone(&cx).is_pending());
            drop(others);
            assert!(woken.0.swap(false, Ordering::AcqRel), "nobody was woken");
            assert!(waiting.poll_alone(&cx).is_ready());
        }
    }

    #[test]
    fn a_crowd_leaves_little_memory_behind() {
        let waiters = Waiters::default();
        let all: Vec<_> = (0..5000)
            .map(|_| {
                let mut waiting = Waiting::new(&waiters);
                waiting.register(&Context::from_waker(Waker::noop()));
                waiting
            })
            .collect();
        drop(all);
        assert!(waiters.lock().capacity() <= KEPT);
    }

    #[test]
    fn wakers_run_and_are_dropped_outside_the_lock() {
        let waiters = Arc::new(Waiters::default());
        let locking = || {
            Arc::new(Locking {
                waiters: Arc::clone(&waiters),
                woken: AtomicBool::new(false),
            })
        };
        let mut waiting = Waiting::new(&waiters);
        for _ in 0..2 {
            let one = locking();
            let waker = Waker::from(Arc::clone(&one));
            waiting.register(&Context::from_waker(&waker));
            drop(waker);
            assert!(!one.woken.load(Ordering::Acquire));
            waiters.wake_all();
            assert!(one.woken.load(Ordering::Acquire));
        }
        drop(waiting);
        assert!(waiters.lock().is_empty());
    }
}
