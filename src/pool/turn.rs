//! [`Turn`]: how a caller waits in line for a connection.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
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
    timeout: Duration,
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
    /// Begins with the connection that a caller has taken, which is returned, or with its ticket.
    #[inline]
    pub(super) fn begin(
        connections: &'a Arc<Connections<C>>,
        first: Result<Examined<'a, C>, Ticket>,
        timeout: Duration,
    ) -> Result<(Self, Option<Examined<'a, C>>), PoolError> {
        // A task says nothing: another executor may run it, in a `LocalSet`.
        if Handle::try_current().is_err() {
            if let Ok(Examined::Fit(taken) | Examined::Doubtful(taken)) = first {
                taken.let_idle();
            }
            return Err(PoolError::NoRuntime);
        }
        connections.state.stats.metrics.started_waiting();
        let (ticket, taken) = match first {
            Ok(taken) => (connections.queue().ticket(), Some(taken)),
            Err(ticket) => (ticket, None),
        };
        let turn = Self {
            connections,
            ticket,
            began: Instant::now(),
            timeout,
            is_in_line: false,
        };
        Ok((turn, taken))
    }

    /// Waits until the caller has a connection that may be handed out, with more to do than to wait.
    pub(super) async fn until_fit(
        &mut self,
        mut examined: Result<Examined<'a, C>, Failed>,
    ) -> Result<Taken<'a, C>, Failed> {
        loop {
            let check = match examined? {
                Examined::Fit(taken) => match self.acquire(taken).await? {
                    Some(taken) => return Ok(taken),
                    None => None,
                },
                Examined::Doubtful(taken) => Some(self.connections.begin_check(taken)),
                Examined::Refused(error) => return Err(Failed::Connect(error)),
                Examined::Evicted => None,
            };
            // Another one may idle.
            let idle = match check {
                Some(_) => None,
                None => self.connections.queue().take(),
            };
            examined = match idle {
                Some(entry) => Ok(self.connections.examine(entry, false)),
                None => self.until_served(check).await,
            };
        }
    }

    /// Waits in line until the queue gives the caller a connection. Begins `check` once the caller is in line.
    pub(super) async fn until_served(
        &mut self,
        mut check: Option<Check<C>>,
    ) -> Result<Examined<'a, C>, Failed> {
        let mut now = self.began;
        let mut left = self.timeout;
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
                    sleep.set(Some(sleep_until(clock::after(now, left.min(NEGLECT)))));
                }
                let over = sleep.as_mut().as_pin_mut().map(|sleep| sleep.poll(cx));
                over.unwrap_or(Poll::Pending).map(|()| None)
            });
            match served.await {
                Some(Served::Connection(entry, from)) => {
                    let is_proven = from != Place::InUse;
                    return Ok(self.connections.examine(entry, is_proven));
                }
                Some(Served::Failed(error)) => return Err(Failed::Connect(error)),
                Some(Served::Closed) => return Err(Failed::Closed),
                None => {}
            }
            now = Instant::now();
            left = self
                .timeout
                .saturating_sub(now.saturating_duration_since(self.began));
            if left.is_zero() {
                return Err(Failed::TimedOut);
            }
            self.connections.expire();
        }
    }

    /// Has the hook `before_acquire` look at a connection. Returns `None` if that closes it.
    async fn acquire(&self, mut taken: Taken<'a, C>) -> Result<Option<Taken<'a, C>>, Failed> {
        let state = &self.connections.state;
        let hook = self.connections.hooks.before_acquire.as_ref();
        let Some(hook) = hook.filter(|_| taken.is_used()) else {
            return Ok(Some(taken));
        };
        let metadata = taken.metadata();
        let deadline = clock::after(self.began, self.timeout);
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
    #[inline]
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

    /// Ends with the connection, and how long the caller has waited for it.
    #[inline]
    pub(super) fn end(
        self,
        taken: Result<Taken<'a, C>, Failed>,
        asked_at: &'static Location<'static>,
    ) -> Result<(PoolEntry<C>, Duration), PoolError> {
        let taken = match taken {
            Ok(taken) => taken,
            Err(failed) => return Err(self.error(failed)),
        };
        let waited = taken.inspected_at().saturating_duration_since(self.began);
        let limit = self.connections.state.policy.slow_checkout_threshold();
        if limit.is_some_and(|limit| waited >= limit) {
            let status = self.connections.status();
            tracing::warn!(waited = ?waited, asked_at = %asked_at, status = %status, "a slow checkout");
        }
        Ok((taken.into_entry(), waited))
    }

    /// Returns what the caller is told that has waited in vain.
    fn error(&self, failed: Failed) -> PoolError {
        self.connections.state.health.record_refused();
        match failed {
            Failed::Closed => PoolError::Closed,
            Failed::Connect(error) => PoolError::Connect(error),
            Failed::TimedOut => {
                let lack = self.connections.queue().lack(self.ticket);
                self.out_of_time(lack)
            }
            Failed::TimedOutInHook => self.out_of_time(Lack::Validating),
        }
    }

    fn out_of_time(&self, lack: Lack) -> PoolError {
        self.connections.state.stats.metrics.timed_out();
        let (waited, status) = (self.timeout, Box::new(self.connections.status()));
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
