//! What the compute has been, and what was done to it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::time::Instant;

/// More than fits on a time line.
const KEPT: usize = 200;

/// The clock of all that is shown: milliseconds since the server's start.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn now(self) -> u64 {
        self.0.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }
}

pub(super) struct Timeline {
    clock: Clock,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// How many there have been.
    count: u64,
    compute: VecDeque<(u64, String)>,
    marks: VecDeque<(u64, &'static str)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            clock: Clock(Instant::now()),
            notes: Mutex::default(),
        }
    }
}

impl Timeline {
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Notes what the compute is from now on.
    pub(super) fn note(&self, compute: &str) {
        let mut notes = self.notes();
        if notes
            .compute
            .back()
            .is_some_and(|(_, last)| last == compute)
        {
            return;
        }
        notes.count += 1;
        keep(&mut notes.compute, (self.clock.now(), compute.to_owned()));
    }

    /// Notes what is done.
    pub(super) fn mark(&self, what: &'static str) {
        let mut notes = self.notes();
        notes.count += 1;
        keep(&mut notes.marks, (self.clock.now(), what));
    }

    /// Returns all notes, if there are others than those seen.
    pub(super) fn news(&self, seen: &mut Option<u64>) -> Option<Value> {
        let notes = self.notes();
        if seen.replace(notes.count) == Some(notes.count) {
            return None;
        }
        Some(json!({
            "now": self.clock.now(),
            "compute": notes.compute,
            "marks": notes.marks,
        }))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(notes: &mut VecDeque<T>, note: T) {
    if notes.len() == KEPT {
        notes.pop_front();
    }
    notes.push_back(note);
}
