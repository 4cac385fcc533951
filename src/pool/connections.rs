//! [`Connections`]: the connections of a pool. [`Slot`]: the place of one that nobody may take.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use tokio::time::Instant;

use super::entry::PoolEntry;
use super::evict::EvictReason;
use super::maintenance::Maintenance;
use super::queue::{Given, Place, Queue};
use super::state::PoolState;
use super::status::Status;
use crate::connect::{ConnectError, Establish};
use crate::util::lock;

/// The connections of a pool, with all that its clones share.
pub(crate) struct Connections<C: Establish> {
    pub(super) state: PoolState,
    pub(super) maintenance: Maintenance,
    // No lock is held across an await, nor while a connection is dropped or a task is woken.
    queue: Mutex<Queue<PoolEntry<C>, ConnectError>>,
}

impl<C: Establish> Connections<C> {
    pub(super) fn new(state: PoolState) -> Self {
        let queue = Queue::new(state.policy.max_size(), state.policy.min_idle());
        Self {
            state,
            maintenance: Maintenance::default(),
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
            connecting: queue.at(Place::Connecting),
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
        }
    }

    /// Gives a connection to the caller that waits first, or lets it idle.
    pub(super) fn give(&self, from: Place, entry: PoolEntry<C>) {
        let given = self.queue().give(from, entry);
        match given {
            Given::Idle => {}
            Given::Served(waker) => waker.wake(),
            Given::Surplus(entry) => entry.evict(&match self.state.generation.is_closed() {
                true => EvictReason::PoolClosed,
                false => EvictReason::Surplus,
            }),
        }
    }

    /// Frees the place of a connection that is no more.
    pub(super) fn free(&self, from: Place) {
        let wakers = self.queue().free(from);
        wake(wakers);
    }

    /// Tells callers that wait of a failed connect, unless the next one may be better.
    pub(super) fn tell(&self, error: &ConnectError) {
        let now = Instant::now();
        let told = |since: Instant| {
            let waited = now.saturating_duration_since(since);
            let is_worthwhile = error.is_worth_waiting_for(waited);
            (!is_worthwhile).then(|| error.clone())
        };
        let wakers = self.queue().fail(told);
        wake(wakers);
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

pub(super) fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// The slot of a connection that nobody may take, or of one that is being made.
///
/// Is free again when it is dropped, whatever ends: a future, a task, or its runtime.
pub(super) struct Slot<C: Establish> {
    connections: Arc<Connections<C>>,
    /// `None` once the connection is given.
    place: Option<Place>,
}

impl<C: Establish> Slot<C> {
    /// Returns the slot of a connection that the queue has counted in `place`.
    pub(super) fn new(connections: &Arc<Connections<C>>, place: Place) -> Self {
        Self {
            connections: Arc::clone(connections),
            place: Some(place),
        }
    }

    pub(super) fn connections(&self) -> &Arc<Connections<C>> {
        &self.connections
    }

    /// Moves the connection to another place.
    pub(super) fn transfer(&mut self, to: Place) {
        if let Some(from) = self.place.replace(to) {
            let wakers = self.connections.queue().transfer(from, to);
            wake(wakers);
        }
    }

    /// Gives the connection to the caller that waits first, or lets it idle.
    pub(super) fn give(mut self, entry: PoolEntry<C>) {
        if let Some(place) = self.place.take() {
            self.connections.give(place, entry);
        }
    }
}

impl<C: Establish> Drop for Slot<C> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.connections.free(place);
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
