//! [`Pool::get`]: how a caller gets a connection. [`PooledConnection`]: how it gives it back.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Pool;
use super::entry::PoolEntry;
use super::error::PoolError;
use super::manager::{ConnectionManager, FailedConnect, ManagerError, polls_check};
use super::queue::{CheckoutPermit, CheckoutQueue, Refused};
use crate::connect::Establish;
use crate::connection::Connection;
use crate::util::clock;

impl<C: Establish> Pool<C> {
    /// Gets a connection that works.
    ///
    /// Callers are served in the order in which they came. A caller that drops the future leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`PoolError::Connect`] at once, in the server's own words, if connecting fails for good. If the policy's
    /// `checkout_timeout` ends, the step that it ended in: [`PoolError::Exhausted`] while every connection was in use,
    /// [`PoolError::Connecting`], or [`PoolError::Validating`], each with the pool's [`Status`](crate::Status). [`PoolError::Closed`]
    /// if the pool is.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<'_, C>, PoolError>> + Send {
        let queue = Cow::Borrowed(&self.queue);
        self.check_out(queue, Location::caller())
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
        let queue = Cow::Owned(Arc::clone(&self.queue));
        self.check_out(queue, Location::caller())
    }

    async fn check_out<'a>(
        &self,
        queue: Cow<'a, Arc<CheckoutQueue>>,
        asked_at: &'static Location<'static>,
    ) -> Result<PooledConnection<'a, C>, PoolError> {
        // The clock is read only if the caller has to wait.
        let mut began = None;
        let permit = match CheckoutPermit::try_take(queue) {
            Ok(permit) => permit,
            Err(queue) => {
                self.wait_for_permit(queue, self.deadline(&mut began))
                    .await?
            }
        };
        let state = self.manager.state();
        let failed_before = state.failed_connects.count();
        let ask = || {
            let connections = self.connections.connections();
            async move { connections.get_owned().await }
        };
        let mut getting = pin!(ask());
        let connection = match poll_fn(|cx| Poll::Ready(getting.as_mut().poll(cx))).await {
            Poll::Ready(Ok(connection)) => connection,
            Poll::Ready(Err(_)) => return Err(self.out_of_time(false)),
            Poll::Pending => {
                state.watch_runtime();
                let failures = state.failed_connects.subscribe(failed_before);
                let began = *began.get_or_insert_with(Instant::now);
                // Boxed, to keep the future of every other checkout small.
                Box::pin(self.until_connected(began, failures, getting, ask)).await?
            }
        };
        let waited = began.map_or(Duration::ZERO, |began| began.elapsed());
        if self
            .policy()
            .slow_checkout_threshold()
            .is_some_and(|limit| waited >= limit)
        {
            tracing::warn!(waited = ?waited, asked_at = %asked_at, status = %self.status(), "a slow checkout");
        }
        state.stats.metrics.handed_out(waited);
        connection.hand_out(asked_at);
        Ok(PooledConnection {
            connection,
            _permit: permit,
        })
    }

    /// Returns when the time of a caller ends that began to wait at `began`, or begins now.
    fn deadline(&self, began: &mut Option<Instant>) -> Instant {
        let began = *began.get_or_insert_with(Instant::now);
        clock::after(began, self.policy().checkout_timeout())
    }

    async fn wait_for_permit<'a>(
        &self,
        queue: Cow<'a, Arc<CheckoutQueue>>,
        deadline: Instant,
    ) -> Result<CheckoutPermit<'a>, PoolError> {
        // Lives until the status is taken.
        let _waiting = self.queue.wait();
        let permit = CheckoutPermit::take(queue, deadline).await;
        permit.map_err(|refused| match refused {
            Refused::Closed => PoolError::Closed,
            Refused::TooLate => {
                self.manager.state().stats.metrics.timed_out();
                PoolError::Exhausted {
                    waited: self.policy().checkout_timeout(),
                    status: Box::new(self.status()),
                }
            }
        })
    }

    /// Waits for bb8's connection, or for a failed connect that is worth telling: bb8 itself only ever says that time
    /// is up.
    async fn until_connected<F>(
        &self,
        began: Instant,
        mut failures: watch::Receiver<FailedConnect>,
        mut getting: Pin<&mut F>,
        ask: impl Fn() -> F,
    ) -> Result<bb8::PooledConnection<'static, ConnectionManager<C>>, PoolError>
    where
        F: Future<Output = FromBb8<C>>,
    {
        let deadline = clock::after(began, self.policy().checkout_timeout());
        let mut validating = false;
        loop {
            if self.is_closed() {
                return Err(PoolError::Closed);
            }
            let connection = poll_fn(|cx| {
                let polled;
                (polled, validating) = polls_check(|| getting.as_mut().poll(cx));
                polled
            });
            tokio::select! {
                biased;
                connection = timeout_at(deadline, connection) => {
                    return match connection {
                        Ok(Ok(connection)) => Ok(connection),
                        Ok(Err(_)) | Err(_) => Err(self.out_of_time(validating)),
                    };
                }
                // The sender lives as long as the manager does.
                Ok(()) = failures.changed() => {
                    let error = failures.borrow_and_update().error.clone();
                    if self.is_closed() {
                        return Err(PoolError::Closed);
                    }
                    if let Some(error) = error.filter(|error| !error.is_worth_waiting_for(began.elapsed())) {
                        return Err(PoolError::Connect(error));
                    }
                    // bb8 connects again only if it is asked anew.
                    getting.set(ask());
                }
            }
        }
    }

    fn out_of_time(&self, validating: bool) -> PoolError {
        self.manager.state().stats.metrics.timed_out();
        let (waited, status) = (self.policy().checkout_timeout(), Box::new(self.status()));
        match validating {
            true => PoolError::Validating { waited, status },
            false => PoolError::Connecting { waited, status },
        }
    }
}

type FromBb8<C> =
    Result<bb8::PooledConnection<'static, ConnectionManager<C>>, bb8::RunError<ManagerError>>;

/// A connection out of a [`Pool`]. Goes back when it is dropped, if it can still be used.
pub struct PooledConnection<'a, C: Establish = Connection> {
    // Dropped in this order: the caller that gets the permit must find the connection.
    connection: bb8::PooledConnection<'static, ConnectionManager<C>>,
    _permit: CheckoutPermit<'a>,
}

impl<C: Establish> PooledConnection<'_, C> {
    /// Returns the pool's entry of this connection: its age and its deadline.
    pub fn entry(&self) -> &PoolEntry<C> {
        &self.connection
    }
}

impl<C: Establish> Drop for PooledConnection<'_, C> {
    fn drop(&mut self) {
        self.connection.take_back();
    }
}

impl<C: Establish> Deref for PooledConnection<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C: Establish> DerefMut for PooledConnection<'_, C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

impl<C: Establish> fmt::Debug for PooledConnection<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledConnection")
            .field(self.entry())
            .finish()
    }
}
