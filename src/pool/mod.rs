//! [`Pool`]: what an application holds.

mod builder;
mod error;
mod room;
mod status;

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

pub use self::builder::PoolBuilder;
pub use self::error::{BuildError, PoolError};
use self::room::Room;
pub use self::status::Status;
use crate::clock;
use crate::connection::Connection;
use crate::env;
use crate::gate::{Gate, Refused, Turn};
use crate::lease::Lease;
use crate::manager::{CHECKING, ConnectionManager, Establish, GivenUp, ManagerError};
use crate::policy::Policy;
use crate::url::DatabaseUrl;

/// A pool of connections that outlive Neon's scale to zero.
///
/// Cheap to clone; the clones are one pool. Nothing is sent before the first [`get`](Self::get), and an
/// idle pool sends not one byte.
pub struct Pool<C: Establish = Connection> {
    room: Arc<Room<C>>,
    manager: ConnectionManager<C>,
    gate: Arc<Gate>,
}

type FromBb8<C> =
    Result<bb8::PooledConnection<'static, ConnectionManager<C>>, bb8::RunError<ManagerError>>;

impl Pool {
    /// A pool for the URL in the environment ([`env::app_url`]), or in the nearest `.env` file where the
    /// environment has none, with the default [`Policy`].
    ///
    /// The file is read for this URL alone; [`env::load_dotenv`] puts all of it into the environment.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn from_env() -> Result<Self, BuildError> {
        Self::builder(env::app_url_or_dotenv()?.url).build()
    }

    /// A pool for `url`.
    pub fn builder(url: DatabaseUrl) -> PoolBuilder {
        PoolBuilder::new(url)
    }
}

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
        let gate = Cow::Borrowed(&self.gate);
        self.check_out(gate, Location::caller())
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
        let gate = Cow::Owned(Arc::clone(&self.gate));
        self.check_out(gate, Location::caller())
    }

    /// How the pool is at this moment.
    pub fn status(&self) -> Status {
        let state = self.room.state();
        let (last_failure, last_failed) = self.manager.last_failure().unzip();
        let (check_failure, check_failed) = self.manager.check_failure().unzip();
        Status {
            max_size: self.policy().max_size(),
            size: state.connections,
            idle: state.idle_connections,
            in_use: state.connections.saturating_sub(state.idle_connections),
            waiting: self.gate.waiting(),
            longest_held: self.manager.held().longest(),
            generation: self.manager.generation(),
            checks: self.manager.stats().checks(),
            closed: self.manager.stats().closed(),
            connects: self.manager.stats().connects(),
            last_failure,
            last_failed: last_failed.map(|at| at.elapsed()),
            check_failure,
            check_failed: check_failed.map(|at| at.elapsed()),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        self.manager.policy()
    }

    /// Retires every connection there is: those in use when they come back, idle ones before they are
    /// handed out. For after a failover, or a change of types in the database.
    pub fn invalidate_all(&self) {
        self.manager.invalidate_all();
    }

    /// Closes the pool: [`get`](Self::get) is an error from now on, idle connections end with
    /// Terminate, those in use have until `patience` to come back.
    ///
    /// Returns whether everything was closed in time. Connections that come back later are closed then.
    pub async fn close(&self, patience: Duration) -> bool {
        let deadline = clock::after(Instant::now(), patience);
        self.manager.close();
        self.gate.close();
        loop {
            // A closed manager finds every idle connection invalid, so one look drops them all.
            let _ = tokio::time::timeout(Duration::ZERO, self.room.connections().get()).await;
            // One that has just been made may reach the pool behind that look.
            let next_look = deadline.min(clock::after(Instant::now(), CLOSING));
            if timeout_at(next_look, self.manager.drained()).await.is_ok() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.manager.is_closed()
    }

    async fn check_out<'a>(
        &self,
        gate: Cow<'a, Arc<Gate>>,
        asked_at: &'static Location<'static>,
    ) -> Result<PooledConnection<'a, C>, PoolError> {
        // No clock is read before there is something to wait for.
        let mut began = None;
        let turn = match Turn::try_take(gate) {
            Ok(turn) => turn,
            Err(gate) => self.wait_for_turn(gate, self.deadline(&mut began)).await?,
        };
        let times_given_up = self.manager.times_given_up();
        let ask = || {
            let connections = self.room.connections();
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
            .slow_checkout()
            .is_some_and(|limit| waited >= limit)
        {
            tracing::warn!(waited = ?waited, asked_at = %asked_at, status = %self.status(), "a slow checkout");
        }
        self.manager.stats().meter.handed_out(waited);
        connection.hand_out(asked_at);
        Ok(PooledConnection {
            connection,
            _turn: turn,
        })
    }

    /// Until when this caller may wait, who begins to if he has not yet.
    fn deadline(&self, began: &mut Option<Instant>) -> Instant {
        let began = *began.get_or_insert_with(Instant::now);
        clock::after(began, self.policy().checkout_timeout())
    }

    async fn wait_for_turn<'a>(
        &self,
        gate: Cow<'a, Arc<Gate>>,
        deadline: Instant,
    ) -> Result<Turn<'a>, PoolError> {
        let _waiting = self.gate.wait();
        let turn = Turn::take(gate, deadline).await;
        turn.map_err(|refused| match refused {
            Refused::Closed => PoolError::Closed,
            Refused::TooLate => {
                self.manager.stats().meter.timed_out();
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
        self.manager.stats().meter.timed_out();
        let (waited, status) = (self.policy().checkout_timeout(), Box::new(self.status()));
        match validating {
            true => PoolError::Validating { waited, status },
            false => PoolError::Connecting { waited, status },
        }
    }
}

impl<C: Establish> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            room: Arc::clone(&self.room),
            manager: self.manager.clone(),
            gate: Arc::clone(&self.gate),
        }
    }
}

impl<C: Establish> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.status())
            .field("policy", self.policy())
            .finish_non_exhaustive()
    }
}

/// How often a pool that is closing looks for connections to close.
const CLOSING: Duration = Duration::from_millis(50);

/// A connection out of a [`Pool`]; goes back when it is dropped, if it still can be used.
pub struct PooledConnection<'a, C: Establish = Connection> {
    // In this order: whose turn it is next must find the connection.
    connection: bb8::PooledConnection<'static, ConnectionManager<C>>,
    _turn: Turn<'a>,
}

impl<C: Establish> PooledConnection<'_, C> {
    /// What the pool knows of this connection.
    pub fn lease(&self) -> &Lease<C> {
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
            .field(self.lease())
            .finish()
    }
}
