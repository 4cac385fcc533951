//! Where connections are, and what a [`Queue`](super::Queue) tells those who wait and those who give connections back.

use std::task::Waker;

/// Where a connection is that does not idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is being made.
    Connecting,
    /// A caller holds it.
    InUse,
    /// It is asked whether it works, or finishes its last statement, and will most likely be of use in a moment.
    Checking,
    /// It is asked whether it works, and most likely does not, or a caller holds it and it is dead. Another may be made in
    /// its place.
    Suspect,
    /// It has not finished its last statement in time.
    Settling,
    /// It is being made, but by a runtime that does not run. Another may be made in its place.
    Stalled,
}

impl Place {
    pub(super) const COUNT: usize = 6;
}

/// A caller's place in the line.
pub(crate) type Ticket = u64;

/// What a caller is given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Served<T, E> {
    /// A connection, which is [in use](Place::InUse) from now on, and where it was before.
    Connection(T, Place),
    /// Why there will be none.
    Failed(E),
    /// The pool is closed.
    Closed,
}

/// What a caller finds when it is polled.
#[derive(Debug)]
#[must_use]
pub(crate) struct Polled<T, E> {
    /// What it is given; `None` while it waits.
    pub(crate) served: Option<Served<T, E>>,
    /// How many connections it is to make, which are [`Connecting`](Place::Connecting) from now on.
    pub(crate) due: u32,
    /// Others to wake.
    pub(crate) wakers: Vec<Waker>,
    /// Dropped outside of the lock: the last waker of a task may drop a connection.
    pub(super) _replaced: Option<Waker>,
}

/// What a caller leaves that goes away.
#[derive(Debug)]
#[must_use]
pub(crate) struct Left<T, E> {
    /// What it was given and has not taken.
    pub(crate) unused: Option<Served<T, E>>,
    /// Others to wake.
    pub(crate) wakers: Vec<Waker>,
    /// Dropped outside of the lock.
    pub(super) _waker: Option<Waker>,
}

/// What became of a connection that was given.
#[derive(Debug)]
#[must_use]
pub(crate) enum Given<T> {
    Idle,
    /// A caller has it, and is to be woken.
    Served(Waker),
    /// Nobody may have it: the pool is closed or full.
    Surplus(T),
}

/// Why a caller that waits has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Every connection is in use.
    Exhausted,
    /// A connection is being made.
    Connecting,
    /// A connection is being checked.
    Validating,
}
