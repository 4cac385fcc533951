//! [`PooledConnection`]: how a caller comes to a connection, and gives it back.

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
use super::manager::{CHECKING, ConnectionManager, GivenUp, ManagerError};
use super::queue::{CheckoutPermit, CheckoutQueue, Refused};
use crate::connect::Establish;
use crate::connection::Connection;
use crate::util::clock;

impl<C: Establish> Pool<C> {
    /// A connection that works, or an error that says why there is none.
    ///
    /// Callers are served in the order in which they came. A caller that gives up (by dropping the
    /// future) leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`PoolError::Connect`] at once, in the server's own words, where connecting fails for good. Where the
    /// policy's `checkout_timeout` ends, the step that it ended in: [`PoolError::Exhausted`] while every
    /// connection was in use, [`PoolError::Connecting`], or [`PoolError::Validating`]; each with the pool's
    /// [`Status`]. And [`PoolError::Closed`].
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<'_, C>, PoolError>> + Send {
        let queue = Cow::Borrowed(&self.queue);
        self.check_out(queue, Location::caller())
    }

    /// Like [`get`](Self::get), for connections that outlive the borrow of the pool.
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
        // No clock is read before there is something to wait for.
        let mut began = None;
        let permit = match CheckoutPermit::try_take(queue) {
            Ok(permit) => permit,
            Err(queue) => {
                self.wait_for_permit(queue, self.deadline(&mut began))
                    .await?
            }
        };
        let times_given_up = self.manager.times_given_up();
        let ask = || {
            let connections = self.connections.connections();
            async move { connections.get_owned().await }
        };
        let mut getting = pin!(ask());
        let connection = match poll_fn(|cx| Poll::Ready(getting.as_mut().poll(cx))).await {
            Poll::Ready(Ok(connection)) => connection,
            Poll::Ready(Err(_)) => return Err(self.out_of_time(false)),
            Poll::Pending => {
                self.manager.watch_runtime();
                let given_up = self.manager.given_up_since(times_given_up);
                let began = *began.get_or_insert_with(Instant::now);
                // In a box, to keep the future of every other checkout small.
                Box::pin(self.connection(began, given_up, getting, ask)).await?
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
        self.manager.stats().metrics.handed_out(waited);
        connection.hand_out(asked_at);
        Ok(PooledConnection {
            connection,
            _permit: permit,
        })
    }

    /// Until when this caller may wait, who begins to if he has not yet.
    fn deadline(&self, began: &mut Option<Instant>) -> Instant {
        let began = *began.get_or_insert_with(Instant::now);
        clock::after(began, self.policy().checkout_timeout())
    }

    async fn wait_for_permit<'a>(
        &self,
        queue: Cow<'a, Arc<CheckoutQueue>>,
        deadline: Instant,
    ) -> Result<CheckoutPermit<'a>, PoolError> {
        let _waiting = self.queue.wait();
        let permit = CheckoutPermit::take(queue, deadline).await;
        permit.map_err(|refused| match refused {
            Refused::Closed => PoolError::Closed,
            Refused::TooLate => {
                self.manager.stats().metrics.timed_out();
                PoolError::Exhausted {
                    waited: self.policy().checkout_timeout(),
                    status: Box::new(self.status()),
                }
            }
        })
    }

    /// Asks bb8, and listens beside it for the reason why no connection comes: bb8 itself only ever
    /// says that time is up.
    async fn connection<F>(
        &self,
        began: Instant,
        mut given_up: watch::Receiver<GivenUp>,
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
            let getting_on = poll_fn(|cx| {
                CHECKING.set(false);
                let polled = getting.as_mut().poll(cx);
                validating = CHECKING.get();
                polled
            });
            tokio::select! {
                biased;
                connection = timeout_at(deadline, getting_on) => {
                    return match connection {
                        Ok(Ok(connection)) => Ok(connection),
                        Ok(Err(_)) | Err(_) => Err(self.out_of_time(validating)),
                    };
                }
                // The sender lives as long as the manager does.
                Ok(()) = given_up.changed() => {
                    let error = given_up.borrow_and_update().last.clone();
                    if self.is_closed() {
                        return Err(PoolError::Closed);
                    }
                    if let Some(error) = error.filter(|error| !error.is_worth_waiting_for(began.elapsed())) {
                        return Err(PoolError::Connect(error));
                    }
                    // bb8 makes another connection only where somebody asks anew.
                    getting.set(ask());
                }
            }
        }
    }

    fn out_of_time(&self, validating: bool) -> PoolError {
        self.manager.stats().metrics.timed_out();
        let (waited, status) = (self.policy().checkout_timeout(), Box::new(self.status()));
        match validating {
            true => PoolError::Validating { waited, status },
            false => PoolError::Connecting { waited, status },
        }
    }
}

type FromBb8<C> =
    Result<bb8::PooledConnection<'static, ConnectionManager<C>>, bb8::RunError<ManagerError>>;

/// A connection out of a [`Pool`]; goes back when it is dropped, if it still can be used.
pub struct PooledConnection<'a, C: Establish = Connection> {
    // In this order: whose turn it is next must find the connection.
    connection: bb8::PooledConnection<'static, ConnectionManager<C>>,
    _permit: CheckoutPermit<'a>,
}

impl<C: Establish> PooledConnection<'_, C> {
    /// What the pool knows of this connection.
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
