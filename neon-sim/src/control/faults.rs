//! Faults on request.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::websocket_fault::WebSocketFault;
use crate::sync::locked;

/// The faults that the next connections meet.
#[derive(Debug)]
pub(crate) struct Faults {
    /// How long a final error of a wake-up is remembered.
    wake_error_cache: Duration,
    remembered: Mutex<Option<(Instant, String)>>,
    wakes: Plan<String>,
    refusals: Plan<String>,
    hangs: Plan<()>,
    websockets: Plan<WebSocketFault>,
    /// Counts the sessions.
    sessions: AtomicU64,
    /// The last session whose bytes are lost, in each [`Direction`].
    last_lost: [AtomicU64; 2],
}

/// Where a session's bytes go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// The beginnings of the errors of a wake-up that pass; all others are final.
const PASSING: [&str; 7] = [
    "Control plane request failed: endpoint is temporarily unavailable",
    "Couldn't connect to compute node",
    "Failed to acquire permit",
    "Too many connections",
    "connection closed",
    "error communicating with the server",
    "the database system is starting up",
];

/// Returns whether another try to wake the compute is in vain.
pub(crate) fn is_final(message: &str) -> bool {
    let passes = |beginning: &&str| message.starts_with(*beginning);
    message != "Control plane request failed" && !PASSING.iter().any(passes)
}

impl Faults {
    pub(crate) fn new(wake_error_cache: Duration) -> Self {
        Self {
            wake_error_cache,
            remembered: Mutex::default(),
            wakes: Plan::default(),
            refusals: Plan::default(),
            hangs: Plan::default(),
            websockets: Plan::default(),
            sessions: AtomicU64::default(),
            last_lost: Default::default(),
        }
    }

    pub(crate) fn fail_wakes(&self, times: u64, message: String) {
        self.wakes.add(times, message);
    }

    pub(crate) fn refuse(&self, times: u64, message: String) {
        self.refusals.add(times, message);
    }

    pub(crate) fn hang(&self, times: u64) {
        self.hangs.add(times, ());
    }

    pub(crate) fn disturb_websockets(&self, times: u64, fault: WebSocketFault) {
        self.websockets.add(times, fault);
    }

    /// Numbers a new session.
    pub(crate) fn enter(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Loses what goes in this direction from now on, in the sessions that there are.
    pub(crate) fn lose(&self, direction: Direction) {
        let last = self.sessions.load(Ordering::SeqCst);
        self.last_lost[direction as usize].store(last, Ordering::SeqCst);
    }

    /// Returns whether the bytes of this session are lost in this direction.
    pub(crate) fn loses(&self, direction: Direction, session: u64) -> bool {
        session <= self.last_lost[direction as usize].load(Ordering::SeqCst)
    }

    pub(crate) fn clear(&self) {
        self.wakes.clear();
        self.refusals.clear();
        self.hangs.clear();
        self.websockets.clear();
        *locked(&self.remembered) = None;
    }

    /// Takes the message that this try to wake the compute fails with, if it does.
    pub(crate) fn next_wake_error(&self) -> Option<String> {
        let message = self.wakes.next()?;
        if is_final(&message) {
            *locked(&self.remembered) = Some((Instant::now(), message.clone()));
        }
        Some(message)
    }

    /// Returns the final error of a wake-up that is still remembered.
    pub(crate) fn remembered_wake_error(&self) -> Option<String> {
        let remembered = locked(&self.remembered);
        let (since, message) = remembered.as_ref()?;
        (since.elapsed() < self.wake_error_cache).then(|| message.clone())
    }

    /// Takes the message that this connection is refused with, if it is.
    pub(crate) fn next_refusal(&self) -> Option<String> {
        self.refusals.next()
    }

    /// Takes a turn of the hangs; returns whether this connection is never answered.
    pub(crate) fn hang_next(&self) -> bool {
        self.hangs.next().is_some()
    }

    /// Takes the fault that this WebSocket meets, if it does.
    pub(crate) fn next_websocket_fault(&self) -> Option<WebSocketFault> {
        self.websockets.next()
    }
}
