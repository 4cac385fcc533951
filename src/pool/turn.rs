//! [`Turn`]: how a caller waits in line for a connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::check::{Check, Examined};
use super::connections::{Connections, Taken, wake};
use super::entry::PoolEntry;
use super::error::PoolError;
use super::evict::EvictReason;
use super::queue::{Lack, NEGLECT, Place, Served, Ticket};
use crate::connect::{ConnectError, Establish};
use crate::util::clock::{self, Moment};

/// A caller that waits, however that ends.
pub(super) struct Turn<'a, C: Establish> {
    connections: &'a Arc<Connections<C>>,
    ticket: Ticket,
    began: Instant,
    /// Whether the queue knows of the caller.
    is_in_line: bool,
}

/// Why a caller has waited in vain.
pub(super) enum Failed {
    Closed,
    Connect(ConnectError),
    TimedOut,
    /// The time was over while `before_acquire` ran.
    TimedOutInHook,
}

impl<'a, C: Establish> Turn<'a, C> {
    pub(super) fn new(
        connections: &'a Arc<Connections<C>>,
        ticket: Ticket,
        began: Instant,
    ) -> Self {
        connections.state.stats.metrics.started_waiting();
        Self {
            connections,
            ticket,
            began,
            is_in_line: false,
        }
    }

    /// Waits until the caller has a connection that may be handed out. `examined` is the one that it has taken.
    pub(super) async fn until_fit(
        &mut self,
        mut examined: Option<Examined<'a, C>>,
        deadline: Instant,
    ) -> Result<Taken<'a, C>, Failed> {
        loop {
            let mut check = None;
            let is_of_no_use = match examined {
                Some(Examined::Fit(taken)) => match self.acquire(taken, deadline).await? {
                    Some(taken) => return Ok(taken),
                    None => true,
                },
                Some(Examined::Doubtful(taken)) => {
                    check = Some(self.connections.begin_check(taken));
                    false
                }
                Some(Examined::Refused(error)) => return Err(Failed::Connect(error)),
                Some(Examined::Evicted) => true,
                None => false,
            };
            if is_of_no_use {
                // Another one may idle.
                let taken = self.connections.queue().take();
                examined = taken.map(|entry| self.connections.examine(entry, false));
                if examined.is_some() {
                    continue;
                }
            }
            examined = match self.until_served(check, deadline).await? {
                Served::Connection(entry, from) => {
                    Some(self.connections.examine(entry, from != Place::InUse))
                }
                Served::Failed(error) => return Err(Failed::Connect(error)),
                Served::Closed => return Err(Failed::Closed),
            };
        }
    }

    /// Waits in line until the queue gives the caller something. Begins `check` once the caller is in line.
    async fn until_served(
        &mut self,
        mut check: Option<Check<C>>,
        deadline: Instant,
    ) -> Result<Served<PoolEntry<C>, ConnectError>, Failed> {
        let mut now = self.began;
        loop {
            let mut sleep = pin!(None::<Sleep>);
            let served = poll_fn(|cx| {
                let served = self.poll_served(cx);
                // Behind the first poll, so that the check cannot end before the caller waits.
                if let Some(check) = check.take() {
                    check.spawn();
                }
                if served.is_some() {
                    return Poll::Ready(served);
                }
                if sleep.is_none() {
                    // Each caller's is later than that of the one before: an earlier one would wake the runtime's driver.
                    let look_again = clock::after(now, NEGLECT);
                    sleep.set(Some(sleep_until(deadline.min(look_again))));
                }
                let over = sleep.as_mut().as_pin_mut().map(|sleep| sleep.poll(cx));
                over.unwrap_or(Poll::Pending).map(|()| None)
            });
            if let Some(served) = served.await {
                return Ok(served);
            }
            now = Instant::now();
            if now >= deadline {
                return Err(Failed::TimedOut);
            }
            self.connections.expire();
        }
    }

    /// Has the hook `before_acquire` look at a connection. Returns `None` if that closes it.
    async fn acquire(
        &self,
        mut taken: Taken<'a, C>,
        deadline: Instant,
    ) -> Result<Option<Taken<'a, C>>, Failed> {
        let state = &self.connections.state;
        let hook = self.connections.hooks.before_acquire.as_ref();
        let Some(hook) = hook.filter(|_| taken.is_used()) else {
            return Ok(Some(taken));
        };
        let metadata = taken.metadata();
        // If this future is dropped, the connection goes back as from a holder.
        let Ok(verdict) = timeout_at(deadline, hook(&mut taken, metadata)).await else {
            return Err(Failed::TimedOutInHook);
        };
        let verdict = match verdict {
            Ok(true) => state.inspect(&mut taken, &Moment::now()),
            Ok(false) => Err(REFUSED),
            Err(error) => {
                tracing::warn!(error = ?error, "before_acquire failed");
                Err(REFUSED)
            }
        };
        Ok(match verdict {
            // Not idle yet: it is settled, and comes back by itself.
            Ok(()) if taken.session().status.is_busy() => None,
            Ok(()) => Some(taken),
            Err(reason) => {
                taken.evict(&reason);
                None
            }
        })
    }

    /// Returns what the caller is given, if it is given anything.
    fn poll_served(&mut self, cx: &Context<'_>) -> Option<Served<PoolEntry<C>, ConnectError>> {
        let mut queue = self.connections.queue();
        let polled = queue.poll(self.ticket, self.began, cx.waker());
        drop(queue);
        self.is_in_line = polled.served.is_none();
        if polled.due > 0 {
            self.connections.make(polled.due);
        }
        if !polled.wakers.is_empty() {
            wake(polled.wakers);
        }
        polled.served
    }

    /// Returns what the caller is told that has waited in vain for `timeout` at most.
    pub(super) fn error(&self, failed: Failed, timeout: Duration) -> PoolError {
        match failed {
            Failed::Closed => PoolError::Closed,
            Failed::Connect(error) => PoolError::Connect(error),
            Failed::TimedOut => {
                let lack = self.connections.queue().lack(self.ticket);
                self.out_of_time(lack, timeout)
            }
            Failed::TimedOutInHook => self.out_of_time(Lack::Validating, timeout),
        }
    }

    fn out_of_time(&self, lack: Lack, waited: Duration) -> PoolError {
        self.connections.state.stats.metrics.timed_out();
        let status = Box::new(self.connections.status());
        match lack {
            Lack::Exhausted => PoolError::Exhausted { waited, status },
            Lack::Connecting => PoolError::Connecting { waited, status },
            Lack::Validating => PoolError::Validating { waited, status },
        }
    }
}

/// Why a connection is closed that `before_acquire` does not want.
const REFUSED: EvictReason = EvictReason::Hook {
    hook: "before_acquire",
};

impl<C: Establish> Drop for Turn<'_, C> {
    fn drop(&mut self) {
        if self.is_in_line {
            let left = self.connections.queue().quit(self.ticket);
            wake(left.wakers);
            if let Some(Served::Connection(entry, _)) = left.unused {
                self.connections.give(Place::InUse, entry);
            }
        }
        self.connections.state.stats.metrics.stopped_waiting();
    }
}
