//! [`Permits`]: how many attempts may be under way at the same time.

use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::util::clock;
use crate::util::lock;

/// Permits for attempts, given in the order in which they are asked for.
///
/// An attempt ends within the bound. One that holds its permit for longer has a runtime that does not run, such as a
/// current-thread runtime between two `block_on`, and keeps nobody out.
#[derive(Debug)]
pub(super) struct Permits {
    free: Semaphore,
    held: Mutex<Held>,
    bound: Duration,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// The numbers of the permits, and when each expires: the first first.
    expiries: Vec<(u64, Instant)>,
}

impl Permits {
    pub(super) fn new(count: u32, bound: Duration) -> Self {
        Self {
            free: Semaphore::new(count as usize),
            held: Mutex::default(),
            bound,
        }
    }

    pub(super) async fn acquire(&self) -> Permit<'_> {
        let mut acquired = pin!(self.free.acquire());
        loop {
            let now = Instant::now();
            let expiry = self.expire(now);
            let next = expiry.unwrap_or_else(|| clock::after(now, self.bound));
            // The semaphore is never closed, so that this is no error.
            if let Ok(permit) = timeout_at(next, &mut acquired).await {
                permit.into_iter().for_each(|permit| permit.forget());
                break;
            }
        }
        let mut held = lock(&self.held);
        held.next += 1;
        let number = held.next;
        let expiry = clock::after(Instant::now(), self.bound);
        held.expiries.push((number, expiry));
        Permit {
            permits: self,
            number,
        }
    }

    /// Frees the permits that are held for longer than an attempt takes. Returns when the next one expires.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut held = lock(&self.held);
        let expired = held.expiries.partition_point(|(_, expiry)| *expiry <= now);
        held.expiries.drain(..expired);
        self.free.add_permits(expired);
        held.expiries.first().map(|(_, expiry)| *expiry)
    }
}

/// Lets another attempt begin once it is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    permits: &'a Permits,
    number: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.permits.held);
        let place = held.expiries.iter().position(|(n, _)| *n == self.number);
        if let Some(place) = place {
            held.expiries.remove(place);
            self.permits.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_permit_is_free_once_whether_it_expires_or_is_dropped() {
        let permits = Permits::new(1, HOUR);
        let first = permits.acquire().await;
        assert!(permits.acquire().now_or_never().is_none());
        permits.expire(clock::after(Instant::now(), HOUR));
        let second = permits.acquire().now_or_never().unwrap();
        drop(first);
        assert!(permits.acquire().now_or_never().is_none());
        drop(second);
        let third = permits.acquire().now_or_never().unwrap();
        assert!(permits.acquire().now_or_never().is_none());
        drop(third);
        assert_eq!(permits.free.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_permit_that_is_held_for_longer_than_an_attempt_takes_keeps_nobody_out() {
        let permits = Permits::new(1, Duration::from_millis(20));
        let _first = permits.acquire().await;
        let second = permits.acquire();
        let second = tokio::time::timeout(Duration::from_secs(60), second).await;
        assert!(second.is_ok(), "a hang");
    }
}
