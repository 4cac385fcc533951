//! Faults that have been asked for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is to go wrong with the next connections.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    wakes: Mutex<VecDeque<(u64, String)>>,
    refusals: Mutex<VecDeque<(u64, String)>>,
    hangs: Mutex<VecDeque<(u64, String)>>,
}

impl Faults {
    pub(crate) fn fail_wakes(&self, times: u64, message: String) {
        plan(&self.wakes, times, message);
    }

    pub(crate) fn refuse(&self, times: u64, message: String) {
        plan(&self.refusals, times, message);
    }

    pub(crate) fn hang(&self, times: u64) {
        plan(&self.hangs, times, String::new());
    }

    pub(crate) fn clear(&self) {
        for plan in [&self.wakes, &self.refusals, &self.hangs] {
            locked(plan).clear();
        }
    }

    /// The message that this wake-up is to fail with.
    pub(crate) fn wake(&self) -> Option<String> {
        next(&self.wakes)
    }

    /// The message that this connection is to be refused with.
    pub(crate) fn refusal(&self) -> Option<String> {
        next(&self.refusals)
    }

    /// Whether this connection is never to be answered.
    pub(crate) fn hangs(&self) -> bool {
        next(&self.hangs).is_some()
    }
}

type Plan = Mutex<VecDeque<(u64, String)>>;

fn plan(plan: &Plan, times: u64, message: String) {
    if times > 0 {
        locked(plan).push_back((times, message));
    }
}

fn next(plan: &Plan) -> Option<String> {
    let mut plan = locked(plan);
    let (left, message) = plan.front_mut()?;
    let message = message.clone();
    *left -= 1;
    if *left == 0 {
        plan.pop_front();
    }
    Some(message)
}

/// Locks without regard to a panic elsewhere: everything locked here is always consistent.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
