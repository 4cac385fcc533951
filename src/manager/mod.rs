//! [`ConnectionManager`]: the policies as bb8 asks for them.

mod check;
mod error;
mod establish;
mod given_up;
mod runtimes;

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use diesel_async::TransactionManager;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

pub use self::error::{ManagerError, Retired};
pub use self::establish::Establish;
pub(crate) use self::establish::is_in_test_transaction;
pub(crate) use self::given_up::GivenUp;
use self::runtimes::Runtimes;
use crate::backoff;
use crate::clock::Moment;
use crate::connect::{ConnectError, Connector, Turns};
use crate::connection::Connection;
use crate::held::Held;
use crate::lease::Lease;
use crate::meter::Meter;
use crate::policy::{Policy, StatementNames};
use crate::pool::BuildError;
use crate::stats::Stats;
use crate::url::{DatabaseUrl, Endpoint};

/// Makes and checks connections; a plain [`bb8::ManageConnection`] for whoever builds a
/// [`bb8::Pool`] by hand. [`Pool`](crate::Pool) is the comfortable way.
///
/// A hand-built pool should set `max_lifetime` and `idle_timeout` to the policy's, so that idle
/// connections are closed and not just never handed out, and leave `test_on_check_out` on. It reports
/// every failure as `RunError::TimedOut`, as bb8 does.
///
/// ```no_run
/// # use diesel_neon::{ConnectionManager, DatabaseUrl, Policy};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let url: DatabaseUrl = std::env::var("DATABASE_URL")?.parse()?;
/// let policy = Policy::default();
/// let manager: ConnectionManager = ConnectionManager::new(&url, policy)?;
/// let pool = bb8::Pool::builder()
///     .max_lifetime(Some(policy.max_lifetime()))
///     .idle_timeout(Some(policy.idle_timeout()))
///     .build(manager)
///     .await?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
///
/// Whatever derefs to a connection, as bb8's do, has diesel-async's own `transaction`, which knows nothing of a future
/// that is dropped: what follows would run inside of the transaction that it has left open. The connection's own refuses
/// to (see [`AbandonedTransaction`](crate::AbandonedTransaction)), so take that where a transaction may be dropped and
/// the connection be used on:
///
/// ```no_run
/// # use diesel_async::AsyncConnection;
/// # use diesel_neon::{Connection, ConnectionManager};
/// # async fn example(pool: bb8::Pool<ConnectionManager>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut pooled = pool.get().await?;
/// let connection: &mut Connection = &mut pooled;
/// connection
///     .transaction(async |connection| Ok::<_, diesel::result::Error>(()))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share their state.
pub struct ConnectionManager<C = Connection> {
    shared: Arc<Shared>,
    connection: PhantomData<fn() -> C>,
}

#[derive(Debug)]
struct Shared {
    connector: Connector,
    policy: Policy,
    /// Connections of an older generation are not handed out.
    generation: AtomicU64,
    /// Told whenever the generation changes, and at the end.
    retired: Notify,
    closed: AtomicBool,
    stats: Arc<Stats>,
    held: Arc<Held>,
    /// The last connect that was given up.
    given_up: watch::Sender<GivenUp>,
    /// Its `times`, for those who only want to know whether there is news.
    times_given_up: AtomicU64,
    /// The last attempt that failed, whether or not another one follows, and when; gone after a success.
    last_failure: watch::Sender<Option<(ConnectError, Instant)>>,
    /// Why the last check failed, and when; gone once one is passed.
    check_failure: watch::Sender<Option<(Retired, Instant)>>,
    /// Connections that were lost before they had answered anything, since a check was passed.
    stillborn: AtomicU32,
    runtimes: Runtimes,
}

impl<C: Establish> ConnectionManager<C> {
    /// Prepares to connect to `url`; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`BuildError::PooledEndpoint`] where the type of connection is not safe there, unless the policy
    /// says that the pooler tracks prepared statements; [`BuildError::Tls`] where the certificates to
    /// trust cannot be loaded.
    pub fn new(url: &DatabaseUrl, policy: Policy) -> Result<Self, BuildError> {
        let tracks = policy.statement_names() == StatementNames::Always;
        if url.endpoint() == Endpoint::Pooled && !C::SAFE_BEHIND_POOLERS && !tracks {
            return Err(BuildError::PooledEndpoint {
                connection: std::any::type_name::<C>(),
            });
        }
        for parameter in url.ignored() {
            tracing::warn!(
                parameter,
                "a parameter of the database URL means nothing here"
            );
        }
        Ok(Self {
            shared: Arc::new(Shared {
                connector: Connector::new(url, &policy)?,
                policy,
                generation: AtomicU64::new(0),
                retired: Notify::new(),
                closed: AtomicBool::new(false),
                stats: Arc::new(Stats::new(Meter::new(url, &policy))),
                held: Arc::new(Held::new()),
                given_up: watch::Sender::default(),
                times_given_up: AtomicU64::new(0),
                last_failure: watch::Sender::new(None),
                check_failure: watch::Sender::new(None),
                stillborn: AtomicU32::new(0),
                runtimes: Runtimes::new(),
            }),
            connection: PhantomData,
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// Retires every connection there is: those in use when they come back, the others when they are
    /// next looked at.
    pub fn invalidate_all(&self) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.shared.retired.notify_waiters();
    }

    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.retired.notify_waiters();
        // Nothing more will come about for those who wait.
        self.give_up(None);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    pub(crate) fn last_failure(&self) -> Option<(ConnectError, Instant)> {
        self.shared.last_failure.borrow().clone()
    }

    pub(crate) fn check_failure(&self) -> Option<(Retired, Instant)> {
        self.shared.check_failure.borrow().clone()
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.shared.held
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// Resolves once every socket is closed.
    pub(crate) async fn drained(&self) {
        self.shared.connector.closed().await;
    }

    async fn make_in(&self, generation: u64, turns: Turns) -> Result<Lease<C>, ConnectError> {
        let began = Instant::now();
        // A pooler logs clients in also where the server behind it is gone, so that connecting alone would
        // never be seen to fail.
        if let Some(failures) = self.shared.stillborn.load(Ordering::Relaxed).checked_sub(1) {
            let left = self.shared.policy.connect_timeout();
            sleep(backoff::pause(failures, left)).await;
        }
        let connected = self
            .shared
            .connector
            .connect(turns, C::establish_with, |error| {
                self.shared.stats.attempt_failed();
                let failure = (error.clone(), Instant::now());
                self.shared.last_failure.send_replace(Some(failure));
            })
            .await;
        match connected {
            Ok((connection, session)) => {
                let (took, cold) = (began.elapsed(), session.observed.was_cold());
                self.shared.stats.opened(took, cold);
                tracing::debug!(took = ?took, cold, "a new connection");
                self.shared.last_failure.send_replace(None);
                if !self.is_suspicious() {
                    self.shared.check_failure.send_replace(None);
                }
                let lifetime = self.shared.policy.max_lifetime();
                let stats = Arc::clone(&self.shared.stats);
                let hold = self.shared.held.hold();
                Ok(Lease::new(
                    connection, session, lifetime, generation, hold, stats,
                ))
            }
            Err(error) => {
                tracing::warn!(error = %error, "no connection");
                Err(error)
            }
        }
    }

    /// Resolves once there is a later generation, or none to come.
    async fn is_retired(&self, generation: u64) {
        loop {
            let retired = self.shared.retired.notified();
            if self.generation() != generation || self.is_closed() {
                return;
            }
            retired.await;
        }
    }

    /// What can be known without asking the server or a clock.
    fn inspect(&self, lease: &mut Lease<C>) -> Result<(), Retired> {
        let observed = &lease.session().observed;
        if self.is_closed() {
            Err(Retired::PoolClosed)
        } else if observed.has_ended() {
            Err(match observed.last_words() {
                Some(words) => Retired::Ended {
                    sqlstate: Some(words.code),
                    message: words.message,
                },
                None => Retired::Ended {
                    sqlstate: None,
                    message: "the connection was closed".to_owned(),
                },
            })
        } else if lease.is_validating() {
            Err(Retired::CheckCancelled)
        } else if lease.session().is_given_up() || (observed.is_busy() && lease.is_abandoned()) {
            Err(Retired::Abandoned)
        } else if C::TransactionManager::is_broken_transaction_manager(&mut **lease)
            || (lease.session().observed.in_transaction() && !is_in_test_transaction(&mut **lease))
        {
            Err(Retired::InTransaction)
        } else if lease.generation() != self.generation() {
            Err(Retired::Generation)
        } else {
            Ok(())
        }
    }

    /// As [`inspect`](Self::inspect), and whether it is young enough to be handed out.
    fn inspect_at(&self, lease: &mut Lease<C>, now: &Moment) -> Result<(), Retired> {
        lease.look();
        self.inspect(lease)?;
        if lease.is_past_deadline(now) {
            return Err(Retired::Lifetime);
        }
        lease.passed_inspection(now);
        Ok(())
    }
}

thread_local! {
    /// Set by a check whenever it is polled. A caller's check is polled by the caller, bb8 in between: that is how
    /// the caller learns what there is to wait for.
    pub(crate) static CHECKING: Cell<bool> = const { Cell::new(false) };
}

fn note<C>(lease: &mut Lease<C>, retired: &Retired) {
    tracing::debug!(reason = %retired, age = ?lease.age(), "a connection is retired");
    lease.close_for(retired.into());
}

impl<C: Establish> bb8::ManageConnection for ConnectionManager<C> {
    type Connection = Lease<C>;
    type Error = ManagerError;

    /// An attempt that is overtaken by the discovery that others are dead is most likely stuck where they
    /// died, so it is begun anew.
    async fn connect(&self) -> Result<Lease<C>, ManagerError> {
        while !self.is_closed() {
            let generation = self.generation();
            tokio::select! {
                biased;
                made = self.make_in(generation, Turns::Common) => {
                    return made.map_err(ManagerError::Connect);
                }
                () = self.is_retired(generation) => {}
            }
        }
        Err(ManagerError::Retired(Retired::PoolClosed))
    }

    async fn is_valid(&self, lease: &mut Lease<C>) -> Result<(), ManagerError> {
        let now = Moment::now();
        let mut inspected = self.inspect_at(lease, &now);
        if inspected.is_ok() {
            let observed = &lease.session().observed;
            let bypass = self.shared.policy.validation_bypass();
            if self.is_suspicious() || observed.is_busy() || observed.quiet_at(&now) >= bypass {
                // In a box, since it is rare, and large: the future of every checkout would hold it.
                let mut check = Box::pin(self.check(lease));
                inspected = poll_fn(|cx| {
                    CHECKING.set(true);
                    check.as_mut().poll(cx)
                })
                .await;
                drop(check);
                self.shared.stats.checked(inspected.is_ok());
            } else {
                self.shared.stats.check_skipped();
            }
        }
        inspected.map_err(|retired| {
            self.note_failed_check(lease, &retired);
            note(lease, &retired);
            ManagerError::Retired(retired)
        })
    }

    fn has_broken(&self, lease: &mut Lease<C>) -> bool {
        // What is outstanding may have arrived; what else has happened is seen on the next checkout.
        if lease.session().observed.is_busy() {
            lease.look();
        }
        lease.let_go();
        match self.inspect(lease) {
            Ok(()) => {
                if lease.session().observed.is_busy() {
                    lease.session().settle();
                }
                false
            }
            Err(retired) => {
                if matches!(retired, Retired::Ended { .. }) {
                    self.note_stillborn(lease);
                }
                note(lease, &retired);
                true
            }
        }
    }
}

impl<C> Clone for ConnectionManager<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            connection: PhantomData,
        }
    }
}

impl<C> fmt::Debug for ConnectionManager<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionManager")
            .field("shared", &self.shared)
            .finish()
    }
}
