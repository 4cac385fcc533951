//! [`ConnectionManager`]: the policies as bb8 asks for them.

mod error;
mod given_up;
mod runtimes;
mod validate;

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use diesel_async::TransactionManager;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

pub use self::error::ManagerError;
pub(crate) use self::given_up::GivenUp;
use self::runtimes::Runtimes;
use super::entry::PoolEntry;
use super::error::BuildError;
use super::evict::EvictReason;
use super::leak::LeakDetector;
use super::metrics::Metrics;
use super::stats::Stats;
use crate::connect::{ConnectError, ConnectSlot, Connector, Establish, is_in_test_transaction};
use crate::connection::Connection;
use crate::policy::{NamedStatements, Policy};
use crate::url::{DatabaseUrl, Endpoint};
use crate::util::backoff;
use crate::util::clock::Moment;

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
    leaks: Arc<LeakDetector>,
    /// The last connect that was given up.
    given_up: watch::Sender<GivenUp>,
    /// Its `times`, for those who only want to know whether there is news.
    times_given_up: AtomicU64,
    /// The last attempt that failed, whether or not another one follows, and when; gone after a success.
    last_failure: watch::Sender<Option<(ConnectError, Instant)>>,
    /// Why the last check failed, and when; gone once one is passed.
    check_failure: watch::Sender<Option<(EvictReason, Instant)>>,
    /// Connections that were lost before they had answered anything, since a check was passed.
    died_after_login: AtomicU32,
    runtimes: Runtimes,
}

impl<C: Establish> ConnectionManager<C> {
    /// Prepares to connect to `url`; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnsafeBehindPooler`] where the type of connection is not safe there, unless the policy
    /// says that the pooler tracks prepared statements; [`BuildError::Tls`] where the certificates to
    /// trust cannot be loaded.
    pub fn new(url: &DatabaseUrl, policy: Policy) -> Result<Self, BuildError> {
        let tracks = policy.named_statements() == NamedStatements::Always;
        if url.endpoint() == Endpoint::Pooled && !C::SAFE_BEHIND_POOLERS && !tracks {
            return Err(BuildError::UnsafeBehindPooler {
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
                stats: Arc::new(Stats::new(Metrics::new(url, &policy))),
                leaks: Arc::new(LeakDetector::new()),
                given_up: watch::Sender::default(),
                times_given_up: AtomicU64::new(0),
                last_failure: watch::Sender::new(None),
                check_failure: watch::Sender::new(None),
                died_after_login: AtomicU32::new(0),
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

    pub(crate) fn check_failure(&self) -> Option<(EvictReason, Instant)> {
        self.shared.check_failure.borrow().clone()
    }

    pub(crate) fn leak_detector(&self) -> &Arc<LeakDetector> {
        &self.shared.leaks
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// Resolves once every socket is closed.
    pub(crate) async fn drained(&self) {
        self.shared.connector.closed().await;
    }

    async fn make_in(
        &self,
        generation: u64,
        slot: ConnectSlot,
    ) -> Result<PoolEntry<C>, ConnectError> {
        let began = Instant::now();
        // A pooler logs clients in also where the server behind it is gone, so that connecting alone would
        // never be seen to fail.
        if let Some(failures) = self
            .shared
            .died_after_login
            .load(Ordering::Relaxed)
            .checked_sub(1)
        {
            let left = self.shared.policy.connect_timeout();
            sleep(backoff::pause(failures, left)).await;
        }
        let connected = self
            .shared
            .connector
            .connect(slot, C::establish_with, |error| {
                self.shared.stats.attempt_failed();
                let failure = (error.clone(), Instant::now());
                self.shared.last_failure.send_replace(Some(failure));
            })
            .await;
        match connected {
            Ok((connection, session)) => {
                let (took, cold) = (began.elapsed(), session.status.was_cold());
                self.shared.stats.opened(took, cold);
                tracing::debug!(took = ?took, cold, "a new connection");
                self.shared.last_failure.send_replace(None);
                if !self.is_suspicious() {
                    self.shared.check_failure.send_replace(None);
                }
                let lifetime = self.shared.policy.max_lifetime();
                let stats = Arc::clone(&self.shared.stats);
                let record = self.shared.leaks.record();
                Ok(PoolEntry::new(
                    connection, session, lifetime, generation, record, stats,
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
    fn inspect(&self, entry: &mut PoolEntry<C>) -> Result<(), EvictReason> {
        let status = &entry.session().status;
        if self.is_closed() {
            Err(EvictReason::PoolClosed)
        } else if status.has_ended() {
            Err(match status.fatal_error() {
                Some(words) => EvictReason::Ended {
                    sqlstate: Some(words.code),
                    message: words.message,
                },
                None => EvictReason::Ended {
                    sqlstate: None,
                    message: "the connection was closed".to_owned(),
                },
            })
        } else if entry.is_validating() {
            Err(EvictReason::CheckCancelled)
        } else if entry.session().is_cancelled() || (status.is_busy() && entry.is_abandoned()) {
            Err(EvictReason::Abandoned)
        } else if C::TransactionManager::is_broken_transaction_manager(&mut **entry)
            || (entry.session().status.in_transaction() && !is_in_test_transaction(&mut **entry))
        {
            Err(EvictReason::InTransaction)
        } else if entry.generation() != self.generation() {
            Err(EvictReason::Generation)
        } else {
            Ok(())
        }
    }

    /// As [`inspect`](Self::inspect), and whether it is young enough to be handed out.
    fn inspect_at(&self, entry: &mut PoolEntry<C>, now: &Moment) -> Result<(), EvictReason> {
        entry.look();
        self.inspect(entry)?;
        if entry.is_past_deadline(now) {
            return Err(EvictReason::Lifetime);
        }
        entry.passed_inspection(now);
        Ok(())
    }
}

thread_local! {
    /// Set by a check whenever it is polled. A caller's check is polled by the caller, bb8 in between: that is how
    /// the caller learns what there is to wait for.
    pub(crate) static CHECKING: Cell<bool> = const { Cell::new(false) };
}

fn note<C>(entry: &mut PoolEntry<C>, retired: &EvictReason) {
    tracing::debug!(reason = %retired, age = ?entry.age(), "a connection is retired");
    entry.close_for(retired.into());
}

impl<C: Establish> bb8::ManageConnection for ConnectionManager<C> {
    type Connection = PoolEntry<C>;
    type Error = ManagerError;

    /// An attempt that is overtaken by the discovery that others are dead is most likely stuck where they
    /// died, so it is begun anew.
    async fn connect(&self) -> Result<PoolEntry<C>, ManagerError> {
        while !self.is_closed() {
            let generation = self.generation();
            tokio::select! {
                biased;
                made = self.make_in(generation, ConnectSlot::Common) => {
                    return made.map_err(ManagerError::Connect);
                }
                () = self.is_retired(generation) => {}
            }
        }
        Err(ManagerError::Evicted(EvictReason::PoolClosed))
    }

    async fn is_valid(&self, entry: &mut PoolEntry<C>) -> Result<(), ManagerError> {
        let now = Moment::now();
        let mut inspected = self.inspect_at(entry, &now);
        if inspected.is_ok() {
            let status = &entry.session().status;
            let bypass = self.shared.policy.validation_bypass();
            if self.is_suspicious() || status.is_busy() || status.quiet_at(&now) >= bypass {
                // In a box, since it is rare, and large: the future of every checkout would record it.
                let mut check = Box::pin(self.check(entry));
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
            self.note_failed_check(entry, &retired);
            note(entry, &retired);
            ManagerError::Evicted(retired)
        })
    }

    fn has_broken(&self, entry: &mut PoolEntry<C>) -> bool {
        // What is outstanding may have arrived; what else has happened is seen on the next checkout.
        if entry.session().status.is_busy() {
            entry.look();
        }
        entry.let_go();
        match self.inspect(entry) {
            Ok(()) => {
                if entry.session().status.is_busy() {
                    entry.session().abandon();
                }
                false
            }
            Err(retired) => {
                if matches!(retired, EvictReason::Ended { .. }) {
                    self.note_died_after_login(entry);
                }
                note(entry, &retired);
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
