//! [`Pool`]: what an application holds.

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

use crate::clock;
use crate::connect::ConnectError;
use crate::connection::Connection;
use crate::env::{self, EnvError};
use crate::gate::{Gate, Refused, Turn};
use crate::lease::Lease;
use crate::manager::{CHECKING, ConnectionManager, Establish, GivenUp, ManagerError, Retired};
use crate::policy::{Policy, PolicyBuilder, PolicyError};
use crate::stats::{Checks, Closed, Connects};
use crate::tls::TlsError;
use crate::url::{DatabaseUrl, UrlError};

/// A pool of connections that outlive Neon's scale to zero.
///
/// Cheap to clone; the clones are one pool. Nothing is sent before the first [`get`](Self::get), and an
/// idle pool sends not one byte.
pub struct Pool<C: Establish = Connection> {
    connections: bb8::Pool<ConnectionManager<C>>,
    manager: ConnectionManager<C>,
    gate: Arc<Gate>,
}

type FromBb8<'a, C> =
    Result<bb8::PooledConnection<'a, ConnectionManager<C>>, bb8::RunError<ManagerError>>;

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
        PoolBuilder {
            url,
            policy: Policy::builder(),
        }
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
        self.check_out(gate, Location::caller(), || self.connections.get())
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
        self.check_out(gate, Location::caller(), || self.connections.get_owned())
    }

    /// How the pool is at this moment.
    pub fn status(&self) -> Status {
        let state = self.connections.state();
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
            let _ = tokio::time::timeout(Duration::ZERO, self.connections.get()).await;
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

    async fn check_out<'a, F>(
        &self,
        gate: Cow<'a, Arc<Gate>>,
        asked_at: &'static Location<'static>,
        get: impl Fn() -> F,
    ) -> Result<PooledConnection<'a, C>, PoolError>
    where
        F: Future<Output = FromBb8<'a, C>>,
    {
        // No clock is read before there is something to wait for.
        let mut began = None;
        let turn = match Turn::try_take(gate) {
            Ok(turn) => turn,
            Err(gate) => self.wait_for_turn(gate, self.deadline(&mut began)).await?,
        };
        let times_given_up = self.manager.times_given_up();
        let mut getting = pin!(get());
        let connection = match poll_fn(|cx| Poll::Ready(getting.as_mut().poll(cx))).await {
            Poll::Ready(Ok(connection)) => connection,
            Poll::Ready(Err(_)) => return Err(self.out_of_time(false)),
            Poll::Pending => {
                let given_up = self.manager.given_up_since(times_given_up);
                let began = *began.get_or_insert_with(Instant::now);
                // In a box, to keep the future of every other checkout small.
                Box::pin(self.connection(began, given_up, getting, get)).await?
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
    async fn connection<'a, F>(
        &self,
        began: Instant,
        mut given_up: watch::Receiver<GivenUp>,
        mut getting: Pin<&mut F>,
        get: impl Fn() -> F,
    ) -> Result<bb8::PooledConnection<'a, ConnectionManager<C>>, PoolError>
    where
        F: Future<Output = FromBb8<'a, C>>,
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
                    getting.set(get());
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
            connections: self.connections.clone(),
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

/// Hears from bb8 that a connect has failed; its slot is free by then, so that who asks again is served.
struct GivenUpSink<C: Establish>(ConnectionManager<C>);

impl<C: Establish> bb8::ErrorSink<ManagerError> for GivenUpSink<C> {
    fn sink(&self, error: ManagerError) {
        if let ManagerError::Connect(error) = error {
            self.0.give_up(Some(&error));
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ManagerError>> {
        Box::new(Self(self.0.clone()))
    }
}

impl<C: Establish> fmt::Debug for GivenUpSink<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GivenUpSink").field(&self.0).finish()
    }
}

/// How often a pool that is closing looks for connections to close.
const CLOSING: Duration = Duration::from_millis(50);

/// Sets a [`Pool`] up.
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    url: DatabaseUrl,
    policy: PolicyBuilder,
}

impl PoolBuilder {
    /// See [`PolicyBuilder::max_size`].
    #[must_use]
    pub fn max_size(mut self, connections: u32) -> Self {
        self.policy = self.policy.max_size(connections);
        self
    }

    /// See [`PolicyBuilder::suspend_after`].
    #[must_use]
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.policy = self.policy.suspend_after(window);
        self
    }

    /// Changes any of the policy's settings: `.policy(|p| p.checkout_timeout(timeout))`.
    #[must_use]
    pub fn policy(mut self, change: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Self {
        self.policy = change(self.policy);
        self
    }

    /// Builds the pool; no connection is made yet.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build(self) -> Result<Pool, BuildError> {
        self.build_with()
    }

    /// Builds a pool of another type of connection.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build_with<C: Establish>(self) -> Result<Pool<C>, BuildError> {
        let timeout = self.url.connect_timeout();
        let policy = self.policy.or_connect_timeout(timeout).build()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime);
        }
        let manager = ConnectionManager::new(&self.url, policy)?;
        let gate = Arc::new(Gate::new(policy.max_size(), Arc::clone(manager.stats())));
        if let Some(limit) = policy.leak_warning() {
            manager.held().watch(limit);
        }
        let connections = bb8::Pool::builder()
            .max_size(policy.max_size())
            .min_idle(Some(policy.min_idle()).filter(|n| *n > 0))
            .max_lifetime(Some(policy.max_lifetime()))
            .idle_timeout(Some(policy.idle_timeout()))
            .reaper_rate(policy.reaper_rate())
            // Lets a pool that has grown shrink again.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            // The manager knows what is worth another try, and the caller's own deadline comes first.
            .retry_connection(false)
            .error_sink(Box::new(GivenUpSink(manager.clone())))
            .connection_timeout(
                policy
                    .checkout_timeout()
                    .saturating_add(Duration::from_secs(1)),
            )
            .build_unchecked(manager.clone());
        Ok(Pool {
            connections,
            manager,
            gate,
        })
    }
}

/// A connection out of a [`Pool`]; goes back when it is dropped, if it still can be used.
pub struct PooledConnection<'a, C: Establish = Connection> {
    // In this order: whose turn it is next must find the connection.
    connection: bb8::PooledConnection<'a, ConnectionManager<C>>,
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

/// How a [`Pool`] is at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How many connections there may be.
    pub max_size: u32,
    /// How many there are.
    pub size: u32,
    /// How many of them lie unused.
    pub idle: u32,
    /// How many of them are handed out or being checked.
    pub in_use: u32,
    /// How many callers wait for a connection to come back.
    pub waiting: usize,
    /// How long the longest-held connection has been out.
    pub longest_held: Option<Duration>,
    /// Grows whenever all connections are retired at once.
    pub generation: u64,
    /// How often connections were checked on checkout, since the pool was built.
    pub checks: Checks,
    /// Why connections were closed, since the pool was built.
    pub closed: Closed,
    /// How connecting went, since the pool was built.
    pub connects: Connects,
    /// Why the last attempt to connect failed; gone once one has succeeded.
    pub last_failure: Option<ConnectError>,
    /// How long ago that was.
    pub last_failed: Option<Duration>,
    /// Why the last check of a connection failed; gone once one has been passed. Behind a pooler that is up,
    /// only this tells that the server is gone: logins go on succeeding.
    pub check_failure: Option<Retired>,
    /// How long ago that was.
    pub check_failed: Option<Duration>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} connections, {} in use, {} waiting",
            self.size, self.max_size, self.in_use, self.waiting
        )?;
        if let Some(held) = self.longest_held {
            write!(f, ", one held for {held:.1?}")?;
        }
        if let (Some(error), Some(ago)) = (&self.last_failure, self.last_failed) {
            write!(f, ", connecting last failed {ago:.1?} ago: {error}")?;
        }
        if let (Some(retired), Some(ago)) = (&self.check_failure, self.check_failed) {
            write!(f, ", a connection was found dead {ago:.1?} ago: {retired}")?;
        }
        Ok(())
    }
}

/// A pool cannot be built.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The environment does not say where the database is.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// There is no tokio runtime for the task that closes idle connections.
    #[error("a pool must be built inside a tokio runtime: call build() from an async function")]
    NoRuntime,
    /// That type of connection gives its statements names, and the pooler may not track them: one
    /// process can then run another's statement.
    #[error(
        "{connection} is not safe behind a pooler: it names its statements, so that one process can run \
         another's; use diesel_neon::Connection, or the direct endpoint (DatabaseUrl::direct), or say that \
         the pooler tracks prepared statements (StatementNames::Always)"
    )]
    PooledEndpoint {
        /// The type of connection.
        connection: &'static str,
    },
    /// Two settings contradict.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The certificates to trust cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// There is no connection.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// Connecting has failed in a way that waiting does not mend.
    #[error("cannot connect: {0}")]
    Connect(#[source] ConnectError),
    /// Connecting took longer than the caller may wait, all attempts together.
    #[error(
        "cannot connect: no connection within {waited:?} ({status}); raise checkout_timeout and \
         connect_timeout if cold starts take longer"
    )]
    Connecting {
        /// How long the caller waited.
        waited: Duration,
        /// How the pool was then.
        status: Box<Status>,
    },
    /// Every connection was in use for as long as the caller may wait.
    #[error(
        "no connection became free within {waited:?} ({status}); raise max_size, or look for \
         connections that are held too long"
    )]
    Exhausted {
        /// How long the caller waited.
        waited: Duration,
        /// How the pool was then.
        status: Box<Status>,
    },
    /// The check of a connection had not ended when the caller's time had: it is dead, or the server is slow.
    #[error(
        "no connection within {waited:?}: the check of one was under way ({status}); raise \
         checkout_timeout, or lower validation_timeout"
    )]
    Validating {
        /// How long the caller waited.
        waited: Duration,
        /// How the pool was then.
        status: Box<Status>,
    },
}

impl PoolError {
    /// Whether the same call may succeed later without anybody changing anything; a web server answers
    /// 503 with Retry-After to these.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Closed => false,
            Self::Connect(error) => error.is_transient(),
            Self::Connecting { .. } | Self::Exhausted { .. } | Self::Validating { .. } => true,
        }
    }
}
