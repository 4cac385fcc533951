//! Connects to a database: transport, TLS, authentication and cold start within one budget.

mod attempt;
mod cancel_token;
mod diagnosis;
mod error;
mod establish;
mod established;
mod failure;
#[cfg(feature = "http")]
mod https;
mod kind;
mod permits;
mod pipelined;
mod probe;
mod setup;
mod time_zone;
mod weightiest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;
use tokio_util::task::TaskTracker;

pub use self::cancel_token::CancelToken;
pub use self::diagnosis::Diagnosis;
pub use self::error::ConnectError;
pub use self::establish::Establish;
pub(crate) use self::establish::{Sealed, is_in_test_transaction};
pub use self::established::EstablishedSession;
use self::failure::Failure;
#[cfg(feature = "http")]
pub(crate) use self::https::HttpsConnector;
pub use self::kind::ConnectErrorKind;
use self::permits::Permits;
pub(crate) use self::pipelined::PendingSession;
pub use self::probe::{Login, Probe, TlsInspection};
pub(crate) use self::setup::SetupError;
#[cfg(feature = "http")]
pub(crate) use self::time_zone::is_utc;
use self::weightiest::WeightiestFailure;
use crate::policy::Policy;
use crate::pooler::PoolerSupport;
use crate::session::{SessionControl, SessionStatus};
use crate::transport::{Dialler, Early, Negotiated, Timer, TlsError};
use crate::url::{DatabaseUrl, Endpoint, TransportMode};
use crate::util::backoff;
use crate::util::clock::SLACK;

/// Makes connections to one database.
#[derive(Debug)]
pub(crate) struct Connector {
    dialler: Arc<Dialler>,
    /// The settings of the login.
    config: Config,
    open: TaskTracker,
    /// The attempts that may be under way at the same time.
    common_slots: Permits,
    /// One more attempt, which finds out whether the server is there while the others are stuck.
    spare_slot: Permits,
    /// The pool's failed attempts since the last success. All callers share them: one that comes late to an
    /// outage starts with the long pause.
    failures: AtomicU32,
    /// Whether a connect has ever succeeded.
    has_connected: AtomicBool,
    response_timeout: Option<Duration>,
    /// Whether the URL lets sessions be in use before their login is answered.
    pipelines_login: bool,
    pooler: Arc<PoolerSupport>,
}

impl Connector {
    pub(crate) fn new(url: &DatabaseUrl, policy: &Policy) -> Result<Self, TlsError> {
        Self::with_timer(url, policy, Timer::Runtime)
    }

    /// Prepares for single connections on a runtime that may have no timers, such as that of Diesel's blocking
    /// wrappers.
    pub(crate) fn untimed(url: &DatabaseUrl, policy: &Policy) -> Result<Self, TlsError> {
        Self::with_timer(url, policy, Timer::Thread)
    }

    fn with_timer(url: &DatabaseUrl, policy: &Policy, timer: Timer) -> Result<Self, TlsError> {
        let dialler = Dialler::new(url, policy.connect_timeout(), timer)?;
        let bound = policy.connect_timeout().saturating_add(SLACK);
        Ok(Self {
            dialler: Arc::new(dialler),
            config: Negotiated::config(&url.to_tokio_postgres()),
            open: TaskTracker::new(),
            common_slots: Permits::new(policy.max_connecting(), bound),
            spare_slot: Permits::new(1, bound),
            failures: AtomicU32::new(0),
            has_connected: AtomicBool::new(false),
            response_timeout: policy.response_timeout(),
            pipelines_login: url.pipelines_login(),
            pooler: Arc::new(PoolerSupport::new(url, policy)),
        })
    }

    /// Returns whether every session is one with the same server, which may begin anew.
    pub(crate) fn has_one_server(&self) -> bool {
        self.pooler.has_one_server()
    }

    /// Has the process of a session name itself with its first request, unless a pooler gives each transaction another.
    pub(crate) fn want_process(&self, status: &SessionStatus) {
        if self.pooler.endpoint() == Endpoint::Direct {
            status.want_process(self.pooler.is_direct_by_name());
        }
    }

    /// Returns how bytes reach the server.
    pub(crate) fn transport(&self) -> TransportMode {
        self.dialler.transport()
    }

    /// Makes one attempt within the budget.
    pub(crate) async fn connect_once(&self) -> Result<EstablishedSession, ConnectError> {
        let failures = WeightiestFailure::default();
        let attempt = self.attempt(&failures, None);
        once(&self.dialler, attempt, || failures.take()).await
    }

    /// Connects and sets the session up with `setup`; retries transient failures within the budget. Calls
    /// `on_failure` with the error of every failed attempt. Each attempt sends what is `early` behind its login.
    pub(crate) async fn connect<C, F>(
        &self,
        slot: ConnectSlot,
        early: Option<&Arc<Early>>,
        setup: impl Fn(EstablishedSession) -> F,
        mut on_failure: impl FnMut(&ConnectError),
    ) -> Result<(C, SessionControl), ConnectError>
    where
        F: Future<Output = Result<C, SetupError>>,
    {
        let (budget, began) = (self.dialler.budget(), Instant::now());
        let mut attempts = 0;
        let mut last: Option<Failure> = None;
        loop {
            attempts += 1;
            let failures = WeightiestFailure::default();
            let attempt = async {
                let _slot = match slot {
                    ConnectSlot::Common => Some(self.common_slots.acquire().await),
                    ConnectSlot::Spare => Some(self.spare_slot.acquire().await),
                    ConnectSlot::Counted => None,
                };
                let established = self.attempt(&failures, early).await?;
                let session = established.session();
                let connection = setup(established).await.map_err(Failure::setup)?;
                Ok::<_, Failure>((connection, session))
            };
            let left = budget.saturating_sub(began.elapsed());
            let failure = match timeout(left, attempt).await {
                Ok(Ok(connected)) => {
                    self.failures.store(0, Ordering::Relaxed);
                    self.has_connected.store(true, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    let last = failures.take().or(last);
                    let error = ConnectError::timed_out(last, budget, attempts, began.elapsed());
                    on_failure(&error);
                    return Err(error);
                }
            };

            let error = ConnectError::new(failure.clone(), attempts, began.elapsed());
            let error = match self.has_connected.load(Ordering::Relaxed) {
                true => error.of_known_server(),
                false => error,
            };
            on_failure(&error);
            let left = error.retry_budget(budget).saturating_sub(began.elapsed());
            let failures = self.failures.fetch_add(1, Ordering::Relaxed);
            let is_crowded = error.kind() == ConnectErrorKind::TooManyConnections;
            let Some(pause) = backoff::pause_to_connect(failures, is_crowded, left) else {
                return Err(error);
            };
            tracing::debug!(error = ?error, pause = ?pause, "connecting failed, trying again");
            last = Some(failure);
            sleep(pause).await;
        }
    }

    /// Waits until every connection that was made here is closed.
    pub(crate) async fn until_closed(&self) {
        self.open.close();
        self.open.wait().await;
    }
}

/// Makes one `attempt` within the budget of `dialler`. `last` returns what it has met with so far.
async fn once<T>(
    dialler: &Dialler,
    attempt: impl Future<Output = Result<T, Failure>>,
    last: impl FnOnce() -> Option<Failure>,
) -> Result<T, ConnectError> {
    let (budget, began) = (dialler.budget(), std::time::Instant::now());
    match dialler.timer().timeout(budget, attempt).await {
        Some(done) => done.map_err(|failure| ConnectError::new(failure, 1, began.elapsed())),
        None => Err(ConnectError::timed_out(last(), budget, 1, began.elapsed())),
    }
}

/// The attempts that wait for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectSlot {
    /// As many at the same time as the policy allows.
    Common,
    /// One at a time, beside the others.
    Spare,
    /// As many as the caller makes, who counts them.
    Counted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_times_out_is_a_failure_like_others() {
        // Takes connections, and says nothing.
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
        let policy = Policy::builder().connect_timeout(Duration::from_millis(50));
        let url = DatabaseUrl::parse(&url).unwrap();
        let connector = Connector::new(&url, &policy.build().unwrap()).unwrap();
        for failures in 1..=2 {
            let setup = async |_| Ok(());
            let connected = connector.connect(ConnectSlot::Common, None, setup, |_| {});
            let error = connected.await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ConnectErrorKind::TimedOut);
            assert_eq!(connector.failures.load(Ordering::Relaxed), failures);
        }
    }
}
