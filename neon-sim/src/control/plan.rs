//! What is to happen next, and how often.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::sync::locked;

/// Faults of one kind, each with how often it is still to be met.
#[derive(Debug)]
pub(crate) struct Plan<T>(Mutex<VecDeque<(u64, T)>>);

impl<T> Default for Plan<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Plan<T> {
    /// Plans a fault behind those that are planned.
    pub(crate) fn add(&self, times: u64, fault: T) {
        if times > 0 {
            locked(&self.0).push_back((times, fault));
        }
    }

    /// Takes the next fault, if there is one.
    pub(crate) fn next(&self) -> Option<T> {
        let mut plan = locked(&self.0);
        let (left, fault) = plan.front_mut()?;
        let fault = fault.clone();
        *left -= 1;
        if *left == 0 {
            plan.pop_front();
        }
        Some(fault)
    }

    pub(crate) fn clear(&self) {
        locked(&self.0).clear();
    }
}
