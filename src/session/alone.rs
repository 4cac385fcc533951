//! [`Alone`]: which requests are sent alone. A pooler that knows no pipelines, as PgBouncer before 1.21, takes the server back at
//! each ReadyForQuery, also in the middle of a request, and puts what another client sends into it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::protocol::{Group, Request};

/// Tells which requests of a session are sent alone.
#[derive(Debug)]
pub(super) struct Alone {
    /// How many bytes a request may have that is sent behind one that is unanswered.
    most_behind: AtomicUsize,
    /// Counts the requests that wait to be sent alone.
    waiting: AtomicUsize,
}

/// Counts a request that waits to be sent alone.
pub(super) struct Turn<'a>(&'a Alone);

impl Alone {
    /// Notes whether a session keeps its server until all its requests are answered.
    pub(super) fn set_keeps_server(&self, keeps_server: bool) {
        let most = if keeps_server { usize::MAX } else { 0 };
        self.most_behind.store(most, Ordering::Relaxed);
    }

    /// Returns whether a request is to be sent alone.
    pub(super) fn is_for(&self, request: &Request) -> bool {
        let len = match request {
            Request::Extended(Group { messages, .. }) => messages.as_bytes().len(),
            Request::Simple(sql) | Request::Copy(sql) => sql.len(),
        };
        len.max(1) > self.most_behind.load(Ordering::Relaxed)
    }

    /// Returns the turn of a request that is to be sent alone, and whether others wait for theirs: it gives way to them once, or
    /// whoever sends one statement after another would keep them from ever being alone.
    pub(super) fn turn(&self, request: &Request) -> (Option<Turn<'_>>, bool) {
        match self.is_for(request) {
            true => {
                let others = self.waiting.fetch_add(1, Ordering::Relaxed);
                (Some(Turn(self)), others > 0)
            }
            false => (None, false),
        }
    }
}

impl Default for Alone {
    fn default() -> Self {
        Self {
            most_behind: AtomicUsize::new(UNKNOWN),
            waiting: AtomicUsize::default(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As long as it is not known: what a TCP segment has room for behind the probe, so that the pooler gets all of it at once.
const UNKNOWN: usize = 1024;
