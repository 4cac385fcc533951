//! [`Pool::get`]: how a caller gets a connection. [`PooledConnection`]: how it gives it back.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::Pool;
use super::check::{Check, Examined};
use super::connections::{Connections, Taken, wake};
use super::entry::PoolEntry;
use super::error::PoolError;
use super::evict::EvictReason;
use super::queue::{Lack, Place, Served, Ticket};
use crate::connect::{ConnectError, Establish};
use crate::connection::Connection;
use crate::util::clock::{self, Moment};

impl<C: Establish> Pool<C> {
    /// Gets a connection that works.
    ///
    /// Callers are served in the order in which they came, each with whatever comes first: a connection that is given
    /// back, one that has answered its check, or a new one. A caller that drops the future leaves nothing behind; a connect that was begun for it goes
    /// on, since the compute is waking anyway, and serves the next.
    ///
    /// # Errors
    ///
    /// [`PoolError::Connect`], in the server's own words, if connecting fails for good: at once, or after a second if
    /// connections are in use, which may come back first. So while a password has been changed, connections that still
    /// work serve on, and one login a second finds out whether the new ones are let in. If the policy's
    /// `checkout_timeout` ends, the step that it ended in: [`PoolError::Exhausted`] while every connection was in use,
    /// [`PoolError::Connecting`], or [`PoolError::Validating`], each with the pool's [`Status`](crate::Status). [`PoolError::Closed`]
    /// if the pool is.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<'_, C>, PoolError>> + Send {
        let connections = Cow::Borrowed(&self.connections);
        check_out(
            connections,
            self.policy().checkout_timeout(),
            Location::caller(),
        )
    }

    /// Gets a connection that works within `timeout`, which takes the place of the policy's `checkout_timeout`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_timeout(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<PooledConnection<'_, C>, PoolError>> + Send {
        check_out(
            Cow::Borrowed(&self.connections),
            timeout,
            Location::caller(),
        )
    }

    /// Gets a connection that outlives the borrow of the pool.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_owned(
        &self,
    ) -> impl Future<Output = Result<PooledConnection<'static, C>, PoolError>> + Send {
        let connections = Cow::Owned(Arc::clone(&self.connections));
        check_out(
            connections,
            self.policy().checkout_timeout(),
            Location::caller(),
        )
    }

    /// As [`get_timeout`](Self::get_timeout), of a connection that outlives the borrow of the pool.
    #[cfg(feature = "blocking")]
    #[track_caller]
    pub(crate) fn get_owned_timeout(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<PooledConnection<'static, C>, PoolError>> + Send + use<C> {
        let connections = Cow::Owned(Arc::clone(&self.connections));
        check_out(connections, timeout, Location::caller())
    }
}

async fn check_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    timeout: Duration,
    asked_at: &'static Location<'static>,
) -> Result<PooledConnection<'a, C>, PoolError> {
    let (entry, waited) = {
        let taken = connections.queue().take_or_ticket();
        match taken.map(|entry| connections.examine(entry, false)) {
            Ok(Examined::Fit(taken)) if !connections.must_run_hook(&taken) => {
                (taken.into_entry(), Duration::ZERO)
            }
            // Boxed, to keep the future of every other checkout small.
            other => Box::pin(wait(&connections, timeout, asked_at, other)).await?,
        }
    };
    Ok(hand_out(connections, entry, waited, asked_at))
}

pub(super) fn hand_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    mut entry: PoolEntry<C>,
    waited: Duration,
    asked_at: &'static Location<'static>,
) -> PooledConnection<'a, C> {
    entry.hand_out(asked_at);
    let connection = PooledConnection {
        entry: Some(entry),
        connections,
    };
    connection.connections.keep_watch();
    let state = &connection.connections.state;
    state.health.record_served();
    state.stats.metrics.handed_out(waited);
    connection
}

/// Waits for a connection that works. `first` is the one that the caller has taken, or its ticket.
async fn wait<C: Establish>(
    connections: &Arc<Connections<C>>,
    timeout: Duration,
    asked_at: &'static Location<'static>,
    first: Result<Examined<'_, C>, Ticket>,
) -> Result<(PoolEntry<C>, Duration), PoolError> {
    if Handle::try_current().is_err() {
        if let Ok(Examined::Fit(taken) | Examined::Doubtful(taken)) = first {
            taken.let_idle();
        }
        return Err(PoolError::NoRuntime);
    }
    let (ticket, examined) = match first {
        Ok(examined) => (connections.queue().ticket(), Some(examined)),
        Err(ticket) => (ticket, None),
    };
    let began = Instant::now();
    let mut turn = Turn::new(connections, ticket, began);
    let taken = turn.until_fit(examined, clock::after(began, timeout)).await;
    let taken = taken.map_err(|failed| {
        connections.state.health.record_refused();
        match failed {
            Failed::Closed => PoolError::Closed,
            Failed::Connect(error) => PoolError::Connect(error),
            Failed::TimedOut => {
                let lack = connections.queue().lack(turn.ticket);
                turn.out_of_time(lack, timeout)
            }
            Failed::TimedOutInHook => turn.out_of_time(Lack::Validating, timeout),
        }
    })?;
    let waited = began.elapsed();
    let limit = connections.state.policy.slow_checkout_threshold();
    if limit.is_some_and(|limit| waited >= limit) {
        tracing::warn!(waited = ?waited, asked_at = %asked_at, status = %connections.status(), "a slow checkout");
    }
    Ok((taken.into_entry(), waited))
}

/// A caller that waits, however that ends.
struct Turn<'a, C: Establish> {
    connections: &'a Arc<Connections<C>>,
    ticket: Ticket,
    began: Instant,
    /// Whether the queue knows of the caller.
    is_in_line: bool,
}

/// Why a caller has waited in vain.
enum Failed {
    Closed,
    Connect(ConnectError),
    TimedOut,
    /// The time was over while `before_acquire` ran.
    TimedOutInHook,
}

impl<'a, C: Establish> Turn<'a, C> {
    fn new(connections: &'a Arc<Connections<C>>, ticket: Ticket, began: Instant) -> Self {
        connections.state.stats.metrics.started_waiting();
        Self {
            connections,
            ticket,
            began,
            is_in_line: false,
        }
    }

    /// Waits until the caller has a connection that may be handed out. `examined` is the one that it has taken.
    async fn until_fit(
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
                let polled = self.poll_served(cx, now);
                // Behind the first poll, so that the check cannot end before the caller waits.
                if let Some(check) = check.take() {
                    check.spawn();
                }
                let expiry = match polled {
                    Ok(served) => return Poll::Ready(Some(served)),
                    Err(expiry) => expiry,
                };
                if sleep.is_none() {
                    sleep.set(Some(sleep_until(deadline.min(expiry))));
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

    /// Returns what the caller is given, or when [`Connections::expire`] is to be called.
    fn poll_served(
        &mut self,
        cx: &Context<'_>,
        now: Instant,
    ) -> Result<Served<PoolEntry<C>, ConnectError>, Instant> {
        let mut queue = self.connections.queue();
        let polled = queue.poll(self.ticket, self.began, cx.waker());
        let expiry = match polled.served {
            Some(_) => now,
            None => queue.next_expiry(now),
        };
        drop(queue);
        self.is_in_line = polled.served.is_none();
        if polled.due > 0 {
            self.connections.make(polled.due);
        }
        if !polled.wakers.is_empty() {
            wake(polled.wakers);
        }
        polled.served.ok_or(expiry)
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

impl<C: Establish> Connections<C> {
    /// Returns whether `before_acquire` is to see a connection: there is that hook, and the connection is not new.
    pub(super) fn must_run_hook(&self, entry: &PoolEntry<C>) -> bool {
        self.hooks.before_acquire.is_some() && entry.is_used()
    }
}

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

/// A connection out of a [`Pool`]. Goes back when it is dropped, if it can still be used.
pub struct PooledConnection<'a, C: Establish = Connection> {
    /// `Some` until it is dropped.
    entry: Option<PoolEntry<C>>,
    connections: Cow<'a, Arc<Connections<C>>>,
}

impl<C: Establish> PooledConnection<'_, C> {
    /// Returns the pool's entry of this connection: its age and its deadline.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "only dropping takes the entry"
    )]
    pub fn entry(&self) -> &PoolEntry<C> {
        self.entry.as_ref().expect("it is not dropped")
    }
}

impl<C: Establish> Drop for PooledConnection<'_, C> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let (since, is_given_up) = entry.take_back();
            let place = match is_given_up {
                true => Place::Suspect,
                false => Place::InUse,
            };
            self.connections.take_back(place, entry);
            self.connections.state.stats.metrics.returned(since);
        }
    }
}

impl<C: Establish> Deref for PooledConnection<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.entry()
    }
}

impl<C: Establish> DerefMut for PooledConnection<'_, C> {
    #[expect(clippy::expect_used, reason = "only dropping takes the entry")]
    fn deref_mut(&mut self) -> &mut C {
        self.entry.as_mut().expect("it is not dropped")
    }
}

impl<C: Establish> fmt::Debug for PooledConnection<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledConnection")
            .field(self.entry())
            .finish()
    }
}
