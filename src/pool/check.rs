//! Checks of idle connections: each lives or dies by its own answer.
//!
//! A check belongs to the pool: it goes on when its caller has given up, and the connection goes to whoever waits
//! first. If its answer is late ([`RoundTrip`]), another connection is made for its caller, and the roll is called: all idle
//! connections are asked at once. So it is if a check fails. Lateness alone evicts nobody, unless the pool is full by the
//! time of the answer.
//!
//! [`RoundTrip`]: super::health::RoundTrip

use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::timeout;

use super::connections::{Connections, Slot, Taken, wake};
use super::entry::PoolEntry;
use super::evict::EvictReason;
use super::queue::{Place, Queue};
use crate::connect::{ConnectError, Establish};
use crate::util::clock::Moment;

/// What is to become of a connection that a caller has taken.
pub(super) enum Examined<'a, C: Establish> {
    /// The caller may have it.
    Fit(Taken<'a, C>),
    /// The server is to be asked first.
    Doubtful(Taken<'a, C>),
    /// It was closed.
    Evicted,
    /// It was closed, and so will be any other: the server has refused it for good.
    Refused(ConnectError),
}

impl<C: Establish> Connections<C> {
    /// Examines a connection that a caller has taken, without asking the server. One that `is_proven` has just
    /// answered.
    pub(super) fn examine<'a>(
        self: &'a Arc<Self>,
        entry: PoolEntry<C>,
        is_proven: bool,
    ) -> Examined<'a, C> {
        let mut taken = Taken::new(self, entry);
        let now = Moment::now();
        // Read before what has arrived unnoticed, which tells nothing of the server now.
        let quiet = taken.session().status.silent_for(&now);
        if let Err(reason) = self.state.inspect(&mut taken, &now) {
            let refused = self.state.record_unfit(&taken, &reason);
            taken.evict(&reason);
            return match refused {
                Some(error) => Examined::Refused(error),
                None => Examined::Evicted,
            };
        }
        if is_proven {
            return Examined::Fit(taken);
        }
        if self.state.must_ask(&taken, quiet, &now) {
            return Examined::Doubtful(taken);
        }
        self.state.stats.check_skipped();
        Examined::Fit(taken)
    }

    /// Prepares the check of a connection in use: from now on it is expected to serve a caller.
    pub(super) fn begin_check(self: &Arc<Self>, taken: Taken<'_, C>) -> Check<C> {
        let mut slot = Slot::new(self, Place::InUse);
        let entry = taken.into_entry();
        slot.transfer_to_check(&entry);
        Check { slot, entry }
    }

    /// Asks the servers of all idle connections that were not heard from since `since`.
    pub(super) fn call_roll(self: &Arc<Self>, since: &Moment) {
        self.call_roll_and(since, |_| Vec::new());
    }

    /// As [`call_roll`](Self::call_roll), and makes a connection suspect whose answer is late. Both at once, so that its
    /// caller waits for a new connection, and not for one that is asked with it.
    pub(super) fn call_roll_behind(self: &Arc<Self>, late: &Slot<C>, since: &Moment) {
        self.call_roll_and(since, |queue| late.transfer_in(queue, Place::Suspect));
    }

    fn call_roll_and(
        self: &Arc<Self>,
        since: &Moment,
        change: impl FnOnce(&mut Queue<PoolEntry<C>, ConnectError>) -> Vec<Waker>,
    ) {
        self.state.doubt_siblings();
        let now = Moment::now();
        let is_spared =
            |entry: &PoolEntry<C>| entry.session().status.silent_for(&now) < now.since(since);
        let mut queue = self.queue();
        let suspects = queue.take_all(Place::Suspect, is_spared);
        let wakers = change(&mut queue);
        drop(queue);
        let checks: Vec<_> = suspects
            .into_iter()
            .map(|entry| check(Slot::new(self, Place::Suspect), entry, None))
            .collect();
        wake(wakers);
        for check in checks {
            tokio::spawn(check);
        }
    }

    /// Returns whether connections are asked that are most likely dead.
    pub(super) fn has_suspects(&self) -> bool {
        self.queue().at(Place::Suspect) > 0
    }
}

/// A check that is about to begin.
pub(super) struct Check<C: Establish> {
    slot: Slot<C>,
    entry: PoolEntry<C>,
}

impl<C: Establish> Check<C> {
    /// Asks the server in a task of the pool's, which gives the connection on.
    pub(super) fn spawn(self) {
        let late = self.slot.connections().state.late();
        tokio::spawn(check(self.slot, self.entry, Some(late)));
    }
}

/// Asks the server, and gives the connection on if it answers. After `late`, the connection is suspect.
async fn check<C: Establish>(slot: Slot<C>, mut entry: PoolEntry<C>, late: Option<Duration>) {
    let connections = Arc::clone(slot.connections());
    let state = &connections.state;
    // Nothing is late before.
    entry.session().status.until_logged_in().await;
    let began = Moment::now();
    let answer = {
        let mut ping = pin!(state.ping(&mut entry));
        let in_time = match late {
            Some(late) => timeout(late, &mut ping).await.ok(),
            None => None,
        };
        match in_time {
            Some(answer) => answer,
            None => {
                if late.is_some() {
                    connections.call_roll_behind(&slot, &began);
                }
                ping.await
            }
        }
    };
    state.stats.checked(answer.is_ok());
    match answer {
        Ok(()) => {
            state.health.record_check_passed();
            slot.give(entry);
        }
        Err(reason) => fail(slot, entry, &reason, &began),
    }
}

/// Closes a connection that has failed its check, which `began` then, and calls the roll.
pub(super) fn fail<C: Establish>(
    slot: Slot<C>,
    entry: PoolEntry<C>,
    reason: &EvictReason,
    began: &Moment,
) {
    let connections = Arc::clone(slot.connections());
    let refused = connections.state.record_failed_check(&entry, reason);
    entry.evict(reason);
    // First, so that whoever waits gets none of them before it has answered.
    connections.call_roll(began);
    drop(slot);
    if let Some(error) = refused {
        connections.tell(&error);
    }
}
