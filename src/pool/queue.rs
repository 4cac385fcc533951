//! [`Queue`]: what the connections of a pool are doing, who waits for one, and who is served first. Pure: it neither
//! sends nor waits nor reads a clock. `served`: what callers and connections are told. `slots`: those of its
//! connections that tasks have, and which of them do not run. `line`: those who wait, in their order. `limits`: how many
//! connections are to be made.

use std::collections::VecDeque;
use std::task::Waker;

use slab::Slab;
use tokio::time::Instant;

use self::limits::Demand;
pub(crate) use self::limits::Limits;
use self::line::Line;
pub(crate) use self::served::{Given, Lack, Left, Place, Polled, Served, Ticket};
pub(crate) use self::slots::NEGLECT;

/// The connections and the callers of one pool.
///
/// Callers are served in the order of their tickets, with whatever comes first: a connection that is given back, one
/// that has answered its check, or a new one.
#[derive(Debug)]
pub(crate) struct Queue<T, E> {
    limits: Limits,
    is_closed: bool,
    /// The connections that anybody may take, the most recently used at the back.
    idle: VecDeque<T>,
    /// How many connections are in each place.
    places: [u32; Place::COUNT],
    /// The connections that a task has, and since when they are in their place.
    slots: Slab<(Place, Instant)>,
    /// When a connect last failed in a way that waiting does not mend, unless one has succeeded since.
    refused: Option<Instant>,
    next_ticket: Ticket,
    waiting: Line<Waiter>,
    /// What callers are given who have not looked yet.
    served: Line<Served<T, E>>,
    /// Those of them that had not looked at a moment, and that moment.
    neglected: Option<(Instant, Vec<Ticket>)>,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    waker: Waker,
}

impl<T, E> Queue<T, E> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            is_closed: false,
            idle: VecDeque::with_capacity(limits.max_size.min(MOST_RESERVED) as usize),
            places: [0; Place::COUNT],
            slots: Slab::new(),
            refused: None,
            next_ticket: 0,
            waiting: Line::new(),
            served: Line::new(),
            neglected: None,
        }
    }

    /// As [`take`](Self::take), or returns a ticket to wait with.
    pub(crate) fn take_or_ticket(&mut self) -> Result<T, Ticket> {
        self.take().ok_or_else(|| self.ticket())
    }

    /// Takes an idle connection, if nobody waits.
    pub(crate) fn take(&mut self) -> Option<T> {
        match self.waiting.is_empty() {
            true => self.take_idle(),
            false => None,
        }
    }

    fn take_idle(&mut self) -> Option<T> {
        let taken = self.idle.pop_back()?;
        self.enter(Place::InUse);
        Some(taken)
    }

    /// Moves the idle connections that are not `spared` to `place`.
    pub(crate) fn take_all(&mut self, place: Place, spared: impl Fn(&T) -> bool) -> Vec<T> {
        let taken = self.reap(|connection| !spared(connection));
        taken.iter().for_each(|_| self.enter(place));
        taken
    }

    /// Gives a connection to the caller that waits first, or lets it idle.
    pub(crate) fn give(&mut self, from: Place, connection: T) -> Given<T> {
        self.leave(from);
        if matches!(from, Place::Connecting | Place::Stalled) {
            self.refused = None;
        }
        if self.is_closed || self.usable() >= self.limits.max_size {
            return Given::Surplus(connection);
        }
        let Some((ticket, waiter)) = self.waiting.pop_first() else {
            self.idle.push_back(connection);
            return Given::Idle;
        };
        self.enter(Place::InUse);
        self.served
            .insert(ticket, Served::Connection(connection, from));
        Given::Served(waiter.waker)
    }

    /// Frees the place of a connection that is no more. Returns those to wake.
    pub(crate) fn free(&mut self, from: Place) -> Vec<Waker> {
        self.leave(from);
        self.advance_and_ask()
    }

    /// Moves a connection to another place. Returns those to wake.
    pub(crate) fn transfer(&mut self, from: Place, to: Place) -> Vec<Waker> {
        self.leave(from);
        self.enter(to);
        self.advance_and_ask()
    }

    /// Gives idle connections to those who wait and whom no check is about to serve, the first first. Returns those to
    /// wake.
    fn advance(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.waiting.len() > self.at(Place::Checking) as usize && !self.idle.is_empty() {
            let Some((ticket, waiter)) = self.waiting.pop_first() else {
                break;
            };
            if let Some(connection) = self.take_idle() {
                self.served
                    .insert(ticket, Served::Connection(connection, Place::InUse));
            }
            wakers.push(waiter.waker);
        }
        wakers
    }

    /// As [`advance`](Self::advance). If connections are to be made, wakes some of those who wait too: they ask for them
    /// when they are polled.
    fn advance_and_ask(&mut self) -> Vec<Waker> {
        let mut wakers = self.advance();
        if self.due() > 0 {
            let askers = self.waiting.values().take(MOST_ASKERS);
            wakers.extend(askers.map(|waiter| waiter.waker.clone()));
        }
        wakers
    }

    /// Returns the next ticket.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Lets a caller wait that has come at `since`, or returns what it is given.
    pub(crate) fn poll(&mut self, ticket: Ticket, since: Instant, waker: &Waker) -> Polled<T, E> {
        let mut wakers = Vec::new();
        let mut replaced = None;
        let mut served = self.served.remove(ticket);
        if self.is_closed {
            replaced = self.waiting.remove(ticket).map(|waiter| waiter.waker);
        } else if served.is_none() {
            let waker = waker.clone();
            let waiter = Waiter { since, waker };
            replaced = self
                .waiting
                .insert(ticket, waiter)
                .map(|waiter| waiter.waker);
            wakers = self.advance();
            if !wakers.is_empty() {
                served = self.served.remove(ticket);
            }
        }
        Polled {
            served: served.or(self.is_closed.then_some(Served::Closed)),
            due: self.connect(),
            wakers,
            _replaced: replaced,
        }
    }

    /// Takes a caller out of the line.
    pub(crate) fn quit(&mut self, ticket: Ticket) -> Left<T, E> {
        let waiter = self.waiting.remove(ticket);
        Left {
            unused: self.served.remove(ticket),
            // It may have been woken to ask for connections, which another one then does.
            wakers: self.advance_and_ask(),
            _waker: waiter.map(|waiter| waiter.waker),
        }
    }

    /// Returns how many connections are to be made, which are [`Connecting`](Place::Connecting) from now on: one for
    /// each caller that nothing else is about to serve, and those that `min_idle` asks for.
    pub(crate) fn connect(&mut self) -> u32 {
        let due = self.due();
        self.places[Place::Connecting as usize] += due;
        due
    }

    /// Returns whether there is room for one more connection, which is [`Connecting`](Place::Connecting) then, whoever
    /// waits for one. There is none while the server refuses them.
    pub(crate) fn connect_one(&mut self) -> bool {
        let most = self.limits.max_size.saturating_mul(2);
        let is_open = !self.is_closed && self.refused.is_none();
        let has_room = is_open && self.size() + self.connecting() < most;
        self.places[Place::Connecting as usize] += u32::from(has_room);
        has_room
    }

    fn due(&self) -> u32 {
        let connecting = self.at(Place::Connecting);
        // Mostly there is no room, which costs less to find out.
        if self.is_closed || self.usable() + connecting >= self.limits.max_size {
            return 0;
        }
        self.limits.due(&Demand {
            waiting: count(self.waiting.len()),
            idle: count(self.idle.len()),
            checking: self.at(Place::Checking),
            connecting,
            usable: self.usable(),
            all: self.size() + self.connecting(),
            is_refused: self.refused.is_some(),
        })
    }

    /// Tells callers that connecting has failed. `error` returns what it has to tell one that has waited since then, while
    /// connections in use may come back or none can.
    ///
    /// Callers that a check is about to serve are spared.
    pub(crate) fn fail(&mut self, error: impl Fn(Instant, bool) -> Option<E>) -> Vec<Waker> {
        let some_in_use = self.has_in_use();
        let spared = self.at(Place::Checking) as usize;
        let waiting = self.waiting.iter().skip(spared);
        let told = waiting
            .filter_map(|(ticket, waiter)| Some((ticket, error(waiter.since, some_in_use)?)));
        let told: Vec<_> = told.collect();
        let tell = |(ticket, error)| {
            self.served.insert(ticket, Served::Failed(error));
            self.waiting.remove(ticket).map(|waiter| waiter.waker)
        };
        told.into_iter().filter_map(tell).collect()
    }

    /// Notes that a connect has failed in a way that waiting does not mend: until one succeeds, one is made at a time.
    pub(crate) fn note_refused(&mut self, now: Instant) {
        self.refused = Some(now);
    }

    /// Returns when a connect was last refused, while connections in use may serve those who wait.
    pub(crate) fn refused_beside_others(&self) -> Option<Instant> {
        self.refused.filter(|_| self.has_in_use())
    }

    /// Returns whether connections are in use that will most likely come back, or are checked and in use next.
    fn has_in_use(&self) -> bool {
        self.at(Place::InUse) + self.at(Place::Settling) + self.at(Place::Checking) > 0
    }

    /// Closes the queue: nobody is given a connection any more. Returns the idle connections, and those to wake.
    pub(crate) fn close(&mut self) -> (Vec<T>, Vec<Waker>) {
        self.is_closed = true;
        let waiting = self.waiting.values();
        let wakers = waiting.map(|waiter| waiter.waker.clone()).collect();
        (self.idle.drain(..).collect(), wakers)
    }

    /// Takes out the idle connections that have `ended`.
    pub(crate) fn reap(&mut self, ended: impl Fn(&T) -> bool) -> Vec<T> {
        let (reaped, kept): (VecDeque<T>, _) = self.idle.drain(..).partition(ended);
        self.idle = kept;
        Vec::from(reaped)
    }

    /// Returns what the holder of `ticket` waits for. A connection that nobody holds may still have to be made: fewer are
    /// made at once than may be missing. Behind both, it is what most connections are at.
    pub(crate) fn lack(&self, ticket: Ticket) -> Lack {
        let ahead = count(self.waiting.ahead_of(ticket));
        let checking = self.at(Place::Checking) + self.at(Place::Suspect);
        let held = self.at(Place::InUse) + self.at(Place::Settling);
        let others = self.limits.max_size.saturating_sub(held);
        if ahead < checking {
            Lack::Validating
        } else if ahead < others.max(checking + self.connecting()) {
            Lack::Connecting
        } else if held >= others {
            Lack::Exhausted
        } else if checking > self.connecting() {
            Lack::Validating
        } else {
            Lack::Connecting
        }
    }

    /// Returns whether there is no connection, and none is being made.
    pub(crate) fn is_empty(&self) -> bool {
        self.size() + self.connecting() == 0
    }

    /// Returns how many connections are being made.
    pub(crate) fn connecting(&self) -> u32 {
        self.at(Place::Connecting) + self.at(Place::Stalled)
    }

    pub(crate) fn idle(&self) -> u32 {
        count(self.idle.len())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn at(&self, place: Place) -> u32 {
        self.places[place as usize]
    }

    /// Returns how many connections exist.
    pub(crate) fn size(&self) -> u32 {
        self.usable() + self.at(Place::Suspect)
    }

    /// Returns how many connections are or will be of use.
    fn usable(&self) -> u32 {
        self.idle() + self.at(Place::InUse) + self.at(Place::Checking) + self.at(Place::Settling)
    }

    fn enter(&mut self, place: Place) {
        self.places[place as usize] += 1;
    }

    fn leave(&mut self, place: Place) {
        self.places[place as usize] -= 1;
    }
}

/// So many callers are woken to ask for connections. One is enough, unless nobody drives its runtime.
const MOST_ASKERS: usize = 8;

/// Space for so many idle connections is reserved at once.
const MOST_RESERVED: u32 = 64;

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

mod limits;
mod line;
mod served;
mod slots;
#[cfg(test)]
mod tests;
