//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks in spite of a panic elsewhere: everything that is locked here is always consistent.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
