//! [`Connections`]: the connections of a pool. [`Slot`]: the place of one that nobody may take. [`Taken`]: one that a
//! caller is about to hold.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::PoolEntry;
use super::episode::Looks;
use super::evict::EvictReason;
use super::hooks::Hooks;
use super::maintenance::Maintenance;
use super::queue::{Given, Limits, Place, Queue};
use super::setup::Setup;
use super::state::PoolState;
use super::status::Status;
use crate::connect::{ConnectError, Establish};
use crate::policy::Policy;
use crate::url::DatabaseUrl;
use crate::util::clock::{self, SLACK};
use crate::util::lock;

/// The connections of a pool, with all that its clones share.
pub(crate) struct Connections<C: Establish> {
    pub(super) state: PoolState,
    pub(super) maintenance: Maintenance,
    pub(super) setup: Setup<C>,
    pub(super) hooks: Hooks<C>,
    /// Where a connection outside of the pool leads to.
    pub(super) direct_url: DatabaseUrl,
    pub(super) looks: Looks,
    // No lock is held across an await, nor while a connection is dropped or a task is woken.
    queue: Mutex<Queue<PoolEntry<C>, ConnectError>>,
}

impl<C: Establish> Connections<C> {
    pub(super) fn new(
        state: PoolState,
        setup: Setup<C>,
        hooks: Hooks<C>,
        direct_url: DatabaseUrl,
    ) -> Self {
        let queue = Queue::new(limits(&state.policy));
        Self {
            state,
            maintenance: Maintenance::default(),
            setup,
            hooks,
            direct_url,
            looks: Looks::default(),
            queue: Mutex::new(queue),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<PoolEntry<C>, ConnectError>> {
        lock(&self.queue)
    }

    pub(super) fn status(&self) -> Status {
        let state = &self.state;
        let (last_failure, last_failed) = state.health.connect_failure().unzip();
        let (check_failure, check_failed) = state.health.check_failure().unzip();
        let longest_held = state.leaks.longest();
        let queue = self.queue();
        Status {
            max_size: state.policy.max_size(),
            size: queue.size(),
            idle: queue.idle(),
            in_use: queue.at(Place::InUse),
            checking: queue.at(Place::Checking),
            suspect: queue.at(Place::Suspect),
            settling: queue.at(Place::Settling),
            connecting: queue.connecting(),
            waiting: queue.waiting(),
            longest_held,
            generation: state.generation.current(),
            checks: state.stats.checks(),
            closed: state.stats.closed(),
            connects: state.stats.connects(),
            last_failure,
            last_failed: last_failed.map(|at| at.elapsed()),
            check_failure,
            check_failed: check_failed.map(|at| at.elapsed()),
            last_refused: state.health.refused().map(|at| at.elapsed()),
            transport: state.connector.transport(),
        }
    }

    /// Gives a connection to the caller that waits first, or lets it idle.
    pub(super) fn give(&self, from: Place, entry: PoolEntry<C>) {
        let given = self.queue().give(from, entry);
        self.see_to(given);
    }

    fn see_to(&self, given: Given<PoolEntry<C>>) {
        match given {
            Given::Idle => {}
            Given::Served(waker) => wake([waker]),
            Given::Surplus(entry) => entry.evict(&match self.state.generation.is_closed() {
                true => EvictReason::PoolClosed,
                false => EvictReason::Surplus,
            }),
        }
    }

    /// Tells callers that wait of a failed connect, unless the next one may be better, or a connection in use may yet
    /// come back.
    pub(super) fn tell(&self, error: &ConnectError) {
        let now = Instant::now();
        let told = |since: Instant, some_in_use: bool| {
            let waited = now.saturating_duration_since(since);
            let is_worthwhile =
                error.is_worth_waiting_for(waited) || (some_in_use && waited < REFUSED_PAUSE);
            (!is_worthwhile).then(|| error.clone())
        };
        let mut queue = self.queue();
        if !error.is_transient() {
            queue.note_refused(now);
        }
        let wakers = queue.fail(told);
        drop(queue);
        wake(wakers);
    }

    /// Returns how long the next connect is to wait: the last was refused for good, and connections in use may serve
    /// those who wait.
    pub(super) fn pause(&self) -> Option<Duration> {
        let refused = self.queue().refused_beside_others()?;
        REFUSED_PAUSE.checked_sub(refused.elapsed())
    }

    /// Counts out what runtimes have that do not run.
    pub(super) fn expire(&self) {
        let (surplus, wakers) = self.queue().expire(Instant::now());
        wake(wakers);
        for entry in surplus {
            self.see_to(Given::Surplus(entry));
        }
    }

    /// Closes the idle connections, and lets nobody have one any more.
    pub(super) fn close(&self) {
        self.state.generation.close();
        let (idle, wakers) = self.queue().close();
        wake(wakers);
        for entry in idle {
            entry.evict(&EvictReason::PoolClosed);
        }
    }
}

impl<C: Establish> Drop for Connections<C> {
    fn drop(&mut self) {
        let (idle, _) = self.queue().close();
        for entry in idle {
            entry.evict(&EvictReason::PoolClosed);
        }
    }
}

/// Wakes all of them. A waker is foreign code: one that panics keeps neither the others nor a place.
pub(super) fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            tracing::error!("a waker panicked");
        }
    }
}

/// The slot of a connection that nobody may take, or of one that is being made.
///
/// Is free again when it is dropped, whatever ends: a future, a task, or its runtime.
pub(super) struct Slot<C: Establish> {
    connections: Arc<Connections<C>>,
    /// `None` once the connection is given.
    key: Option<usize>,
}

impl<C: Establish> Slot<C> {
    /// Returns the slot of a connection that the queue has counted in `place`.
    pub(super) fn new(connections: &Arc<Connections<C>>, place: Place) -> Self {
        let key = connections.queue().open_slot(place, Instant::now());
        Self {
            connections: Arc::clone(connections),
            key: Some(key),
        }
    }

    pub(super) fn connections(&self) -> &Arc<Connections<C>> {
        &self.connections
    }

    /// Moves the connection to another place.
    pub(super) fn transfer(&mut self, to: Place) {
        self.transfer_at(to, Instant::now());
    }

    /// Moves the connection to those that are checked. The check begins behind a login that is under way, which has a bound of
    /// its own.
    pub(super) fn transfer_to_check(&mut self, entry: &PoolEntry<C>) {
        let login = match entry.session().status.is_logging_in() {
            true => self.connections.state.policy.connect_timeout(),
            false => Duration::ZERO,
        };
        self.transfer_at(Place::Checking, clock::after(Instant::now(), login));
    }

    fn transfer_at(&mut self, to: Place, at: Instant) {
        if let Some(key) = self.key {
            let mut queue = self.connections.queue();
            let wakers = queue.transfer_slot(key, to, at);
            drop(queue);
            wake(wakers);
        }
    }

    /// As [`transfer`](Self::transfer), in the queue that is locked. Returns those to wake.
    pub(super) fn transfer_in(
        &self,
        queue: &mut Queue<PoolEntry<C>, ConnectError>,
        to: Place,
    ) -> Vec<Waker> {
        let key = self.key.into_iter();
        key.flat_map(|key| queue.transfer_slot(key, to, Instant::now()))
            .collect()
    }

    /// Gives the connection to the caller that waits first, or lets it idle.
    pub(super) fn give(mut self, entry: PoolEntry<C>) {
        if let Some(key) = self.key.take() {
            let given = self.connections.queue().give_slot(key, entry);
            self.connections.see_to(given);
        }
    }
}

impl<C: Establish> Drop for Slot<C> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let wakers = self.connections.queue().free_slot(key);
            wake(wakers);
        }
    }
}

/// Returns the bounds of the queue.
fn limits(policy: &Policy) -> Limits {
    Limits {
        max_size: policy.max_size(),
        min_idle: policy.min_idle(),
        max_connecting: policy.max_connecting(),
        connect: policy
            .connect_timeout()
            .saturating_add(policy.validation_timeout())
            .saturating_add(SLACK),
        check: policy.validation_timeout().saturating_add(SLACK),
    }
}

/// If a connect was refused for good, connections in use have so long to serve those who wait, and the next connect waits
/// as long.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// A connection in use that no caller holds yet.
///
/// Its place is never lost: if it is dropped, the connection goes back as from a holder, and if that is because of a
/// panic, the connection is closed.
pub(super) struct Taken<'a, C: Establish> {
    connections: &'a Arc<Connections<C>>,
    /// `Some` until it is handed on.
    entry: Option<PoolEntry<C>>,
}

impl<'a, C: Establish> Taken<'a, C> {
    /// Guards a connection that the queue has counted as in use.
    pub(super) fn new(connections: &'a Arc<Connections<C>>, entry: PoolEntry<C>) -> Self {
        Self {
            connections,
            entry: Some(entry),
        }
    }

    /// Hands the connection on, which stays in use.
    #[expect(clippy::expect_used, reason = "only handing it on takes it")]
    pub(super) fn into_entry(mut self) -> PoolEntry<C> {
        self.entry.take().expect("it is not handed on")
    }

    /// Lets the connection idle, or gives it to the caller that waits first.
    pub(super) fn let_idle(self) {
        let connections = self.connections;
        connections.give(Place::InUse, self.into_entry());
    }

    /// Closes the connection.
    pub(super) fn evict(self, reason: &EvictReason) {
        // Freed behind the connection's end, also if telling of that panics.
        let _slot = Slot::new(self.connections, Place::InUse);
        self.into_entry().evict(reason);
    }
}

impl<C: Establish> Deref for Taken<'_, C> {
    type Target = PoolEntry<C>;

    #[expect(clippy::expect_used, reason = "only handing it on takes it")]
    fn deref(&self) -> &PoolEntry<C> {
        self.entry.as_ref().expect("it is not handed on")
    }
}

impl<C: Establish> DerefMut for Taken<'_, C> {
    #[expect(clippy::expect_used, reason = "only handing it on takes it")]
    fn deref_mut(&mut self) -> &mut PoolEntry<C> {
        self.entry.as_mut().expect("it is not handed on")
    }
}

impl<C: Establish> Drop for Taken<'_, C> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            if std::thread::panicking() {
                let _slot = Slot::new(self.connections, Place::InUse);
                drop(entry);
            } else {
                self.connections.settle(entry);
            }
        }
    }
}

impl<C: Establish> fmt::Debug for Connections<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[test]
    fn a_waker_that_panics_keeps_no_other_from_being_woken() {
        #[derive(Default)]
        struct Faulty(AtomicU32);
        impl Wake for Faulty {
            fn wake(self: Arc<Self>) {
                let woken = self.0.fetch_add(1, Ordering::Relaxed);
                assert_ne!(woken, 0, "a fault of the application's");
            }
        }
        let faulty = Arc::new(Faulty::default());
        let waker = || Waker::from(Arc::clone(&faulty));
        wake([waker(), waker(), waker()]);
        assert_eq!(AtomicU32::load(&faulty.0, Ordering::Relaxed), 3);
    }
}
