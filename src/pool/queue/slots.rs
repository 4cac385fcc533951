//! The slots of a [`Queue`]: connections that tasks have, and what is done if a task does not run.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::{Given, Place, Queue, Served};
use crate::util::clock;

/// Identifies a slot.
type SlotKey = usize;

impl<T, E> Queue<T, E> {
    /// Opens the slot of a connection that is counted in `place`.
    pub(crate) fn open_slot(&mut self, place: Place, now: Instant) -> SlotKey {
        self.slots.insert((place, now))
    }

    /// As [`give`](Self::give), of the connection of a slot.
    pub(crate) fn give_slot(&mut self, key: SlotKey, connection: T) -> Given<T> {
        let (from, _) = self.slots.remove(key);
        self.give(from, connection)
    }

    /// As [`free`](Self::free), of a slot.
    pub(crate) fn free_slot(&mut self, key: SlotKey) -> Vec<Waker> {
        let (from, _) = self.slots.remove(key);
        self.free(from)
    }

    /// As [`transfer`](Self::transfer), of the connection of a slot.
    pub(crate) fn transfer_slot(&mut self, key: SlotKey, to: Place, now: Instant) -> Vec<Waker> {
        let (from, _) = std::mem::replace(&mut self.slots[key], (to, now));
        self.transfer(from, to)
    }

    /// Counts connections out whose runtime does not run, such as a current-thread runtime between two `block_on`: a
    /// connect or a check that takes longer than it can, and what was given to a caller that does not take it. Returns
    /// connections that nobody may have, and those to wake.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<T>, Vec<Waker>) {
        let slots = self.slots.iter();
        let expired = slots.filter(|(_, slot)| self.expiry(slot).is_some_and(|at| at <= now));
        let expired: Vec<_> = expired.map(|(key, slot)| (key, slot.0)).collect();
        for (key, from) in expired {
            let to = match from {
                Place::Connecting => Place::Stalled,
                _ => Place::Suspect,
            };
            self.slots[key] = (to, now);
            self.leave(from);
            self.enter(to);
        }
        let (mut surplus, mut wakers) = (Vec::new(), Vec::new());
        let is_over = |at: Instant| now.saturating_duration_since(at) >= NEGLECT;
        if self.neglected.as_ref().is_none_or(|(at, _)| is_over(*at)) {
            let looked_for = self.served.iter().map(|(ticket, _)| ticket).collect();
            let neglected = self.neglected.replace((now, looked_for));
            for ticket in neglected.into_iter().flat_map(|(_, tickets)| tickets) {
                match self.served.remove(ticket) {
                    // The caller waits again if it ever looks.
                    Some(Served::Connection(connection, _)) => {
                        match self.give(Place::InUse, connection) {
                            Given::Idle => {}
                            Given::Served(waker) => wakers.push(waker),
                            Given::Surplus(connection) => surplus.push(connection),
                        }
                    }
                    Some(other) => drop(self.served.insert(ticket, other)),
                    None => {}
                }
            }
        }
        wakers.extend(self.advance_and_ask());
        (surplus, wakers)
    }

    /// Returns when a slot expires.
    fn expiry(&self, &(place, since): &(Place, Instant)) -> Option<Instant> {
        match place {
            Place::Connecting => Some(clock::after(since, self.limits.connect)),
            Place::Checking | Place::Settling => Some(clock::after(since, self.limits.check)),
            Place::InUse | Place::Suspect | Place::Stalled => None,
        }
    }
}

/// A caller that has not taken what it was given for so long is not run by its runtime. Each caller that waits looks for
/// such others as often.
pub(crate) const NEGLECT: Duration = Duration::from_secs(1);
