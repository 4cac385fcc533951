//! [`Pool::get`]: how a caller gets a connection. [`PooledConnection`]: how it gives it back.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::Pool;
use super::check::Examined;
use super::connections::{Connections, wake};
use super::entry::PoolEntry;
use super::error::PoolError;
use super::queue::{Lack, Place, Served, Ticket};
use crate::connect::{ConnectError, Establish};
use crate::connection::Connection;
use crate::util::clock;

impl<C: Establish> Pool<C> {
    /// Gets a connection that works.
    ///
    /// Callers are served in the order in which they came, each with whatever comes first: a connection that is given
    /// back, or a new one. A caller that drops the future leaves nothing behind; a connect that was begun for it goes
    /// on, since the compute is waking anyway, and serves the next.
    ///
    /// # Errors
    ///
    /// [`PoolError::Connect`] at once, in the server's own words, if connecting fails for good. If the policy's
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

    /// Returns an idle connection that was heard from within the policy's `validation_bypass`, if there is one and
    /// nobody waits for it. Sends nothing.
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConnection<'_, C>> {
        let connections = &self.connections;
        loop {
            let taken = connections.queue().take()?;
            match connections.examine(taken, false) {
                Examined::Fit(entry) => {
                    let connections = Cow::Borrowed(connections);
                    let (waited, asked_at) = (Duration::ZERO, Location::caller());
                    return Some(hand_out(connections, entry, waited, asked_at));
                }
                Examined::Doubtful(entry) => {
                    connections.give(Place::InUse, entry);
                    return None;
                }
                Examined::Evicted => {}
                Examined::Refused(_) => return None,
            }
        }
    }
}

async fn check_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    timeout: Duration,
    asked_at: &'static Location<'static>,
) -> Result<PooledConnection<'a, C>, PoolError> {
    let taken = connections.queue().take();
    let examined = taken.map(|entry| connections.examine(entry, false));
    let (entry, waited) = match examined {
        Some(Examined::Fit(entry)) => (entry, Duration::ZERO),
        // Boxed, to keep the future of every other checkout small.
        other => Box::pin(wait(&connections, timeout, asked_at, other)).await?,
    };
    Ok(hand_out(connections, entry, waited, asked_at))
}

fn hand_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    entry: PoolEntry<C>,
    waited: Duration,
    asked_at: &'static Location<'static>,
) -> PooledConnection<'a, C> {
    connections.state.stats.metrics.handed_out(waited);
    entry.hand_out(asked_at);
    PooledConnection {
        entry: Some(entry),
        connections,
    }
}

/// Waits for a connection that works. `examined` is the one that the caller has taken.
async fn wait<C: Establish>(
    connections: &Arc<Connections<C>>,
    timeout: Duration,
    asked_at: &'static Location<'static>,
    examined: Option<Examined<C>>,
) -> Result<(PoolEntry<C>, Duration), PoolError> {
    if Handle::try_current().is_err() {
        if let Some(Examined::Doubtful(entry)) = examined {
            connections.give(Place::InUse, entry);
        }
        return Err(PoolError::NoRuntime);
    }
    let began = Instant::now();
    let turn = Turn::new(connections, began);
    let entry = turn.until_fit(examined, clock::after(began, timeout)).await;
    let entry = entry.map_err(|failed| match failed {
        Failed::Closed => PoolError::Closed,
        Failed::Connect(error) => PoolError::Connect(error),
        Failed::TimedOut => turn.out_of_time(timeout),
    })?;
    let waited = began.elapsed();
    let limit = connections.state.policy.slow_checkout_threshold();
    if limit.is_some_and(|limit| waited >= limit) {
        tracing::warn!(waited = ?waited, asked_at = %asked_at, status = %connections.status(), "a slow checkout");
    }
    Ok((entry, waited))
}

/// A caller that waits, however that ends.
struct Turn<'a, C: Establish> {
    connections: &'a Arc<Connections<C>>,
    ticket: Ticket,
    began: Instant,
}

/// Why a caller has waited in vain.
enum Failed {
    Closed,
    Connect(ConnectError),
    TimedOut,
}

impl<'a, C: Establish> Turn<'a, C> {
    fn new(connections: &'a Arc<Connections<C>>, began: Instant) -> Self {
        connections.state.stats.metrics.started_waiting();
        let ticket = connections.queue().ticket();
        Self {
            connections,
            ticket,
            began,
        }
    }

    /// Waits until the caller has a connection that may be handed out. `examined` is the one that it has taken.
    async fn until_fit(
        &self,
        mut examined: Option<Examined<C>>,
        deadline: Instant,
    ) -> Result<PoolEntry<C>, Failed> {
        loop {
            let mut check = match examined {
                Some(Examined::Fit(entry)) => return Ok(entry),
                Some(Examined::Doubtful(entry)) => Some(self.connections.begin_check(entry)),
                Some(Examined::Refused(error)) => return Err(Failed::Connect(error)),
                Some(Examined::Evicted) | None => None,
            };
            let served = poll_fn(|cx| {
                let served = self.poll_served(cx);
                // Behind the first poll, so that the caller waits before the check can end.
                if let Some(check) = check.take() {
                    check.spawn();
                }
                served
            });
            let served = timeout_at(deadline, served).await;
            examined = match served.map_err(|_| Failed::TimedOut)? {
                Served::Connection(entry, from) => {
                    Some(self.connections.examine(entry, from != Place::InUse))
                }
                Served::Failed(error) => return Err(Failed::Connect(error)),
                Served::Closed => return Err(Failed::Closed),
            };
        }
    }

    fn poll_served(&self, cx: &mut Context<'_>) -> Poll<Served<PoolEntry<C>, ConnectError>> {
        let polled = self
            .connections
            .queue()
            .poll(self.ticket, self.began, cx.waker());
        self.connections.make(polled.due);
        wake(polled.wakers);
        polled.served.map_or(Poll::Pending, Poll::Ready)
    }

    fn out_of_time(&self, waited: Duration) -> PoolError {
        self.connections.state.stats.metrics.timed_out();
        let lack = self.connections.queue().lack(self.ticket);
        let status = Box::new(self.connections.status());
        match lack {
            Lack::Exhausted => PoolError::Exhausted { waited, status },
            Lack::Connecting => PoolError::Connecting { waited, status },
            Lack::Validating => PoolError::Validating { waited, status },
        }
    }
}

impl<C: Establish> Drop for Turn<'_, C> {
    fn drop(&mut self) {
        self.connections.state.stats.metrics.stopped_waiting();
        let (unused, wakers) = self.connections.queue().quit(self.ticket);
        wake(wakers);
        if let Some(Served::Connection(entry, _)) = unused {
            self.connections.give(Place::InUse, entry);
        }
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
            entry.take_back();
            self.connections.take_back(entry);
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
