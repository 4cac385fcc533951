//! From a URL to a session: transport, TLS, wire, authentication and cold start under one deadline.

mod cancel;
mod diagnosis;
mod error;
mod handshake;
mod transport;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::config as pg;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::TaskTracker;

pub use self::cancel::CancelToken;
pub(crate) use self::cancel::Canceller;
pub use self::diagnosis::Diagnosis;
pub use self::error::{ConnectError, ConnectErrorKind};
use self::error::{Failure, Persistence};
use self::handshake::Driver;
pub use self::handshake::Handshake;
pub(crate) use self::handshake::Session;
pub(crate) use self::transport::Transport;
use self::transport::Wrapping;
use crate::backoff;
use crate::connection::Naming;
use crate::policy::Policy;
use crate::tls::{self, TlsError};
use crate::url::{DatabaseUrl, Encryption, HostName};
use crate::wire::{Channel, Handover, Observed, Wire};

/// Makes connections to one database.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Config,
    tls: Option<Tls>,
    #[cfg(unix)]
    sockets: Vec<std::path::PathBuf>,
    budget: Duration,
    open: TaskTracker,
    /// Attempts that may be under way at the same time.
    turns: Semaphore,
    /// One attempt more, to find out whether the server is there while the others are stuck.
    spare: Semaphore,
    /// Attempts that have failed since one succeeded, the pool's all together: who comes late to an
    /// outage starts with the pause that it has grown to.
    failures: AtomicU32,
    naming: Arc<Naming>,
    timed: bool,
}

impl Connector {
    pub(crate) fn new(url: &DatabaseUrl, policy: &Policy) -> Result<Self, TlsError> {
        let mut connector = Self::untimed(url, policy)?;
        connector.timed = true;
        // Per address, so that one that does not answer leaves time for the next.
        let address = (policy.connect_timeout() / 3).min(ADDRESS_TIMEOUT);
        connector.config.connect_timeout(address);
        Ok(connector)
    }

    /// For single connections on a runtime that may have no timers, as those that block on a
    /// connection do not: nothing is bounded, and nothing tried again.
    pub(crate) fn untimed(url: &DatabaseUrl, policy: &Policy) -> Result<Self, TlsError> {
        let mut config = url.to_tokio_postgres();
        let tls = match url.encryption() {
            Encryption::Tls { roots, .. } => {
                Some(Tls(MakeRustlsConnect::new(tls::client_config(roots)?)))
            }
            Encryption::Plain => {
                // The "TLS" is then a stream that only watches.
                config
                    .ssl_mode(pg::SslMode::Require)
                    .ssl_negotiation(pg::SslNegotiation::Direct);
                None
            }
        };
        #[cfg(unix)]
        let sockets = url.hosts().iter().filter_map(|host| match &host.name {
            HostName::Unix(folder) => Some(folder.join(format!(".s.PGSQL.{}", host.port))),
            HostName::Tcp(_) => None,
        });
        Ok(Self {
            config,
            tls,
            #[cfg(unix)]
            sockets: sockets.collect(),
            budget: policy.connect_timeout(),
            open: TaskTracker::new(),
            turns: Semaphore::new(policy.max_connecting() as usize),
            spare: Semaphore::new(1),
            failures: AtomicU32::new(0),
            naming: Arc::new(Naming::new(url, policy)),
            timed: false,
        })
    }

    /// One attempt, however long it takes.
    pub(crate) async fn connect_once(&self) -> Result<Handshake, ConnectError> {
        let began = std::time::Instant::now();
        let attempt = self.attempt().await;
        attempt.map_err(|failure| ConnectError::new(failure, 1, began.elapsed()))
    }

    /// Connects and sets the session up with `setup`; tries again, within the budget, what is worth
    /// another try. `on_failure` hears of every attempt that failed.
    pub(crate) async fn connect<C, F>(
        &self,
        turns: Turns,
        setup: impl Fn(Handshake) -> F,
        mut on_failure: impl FnMut(&ConnectError),
    ) -> Result<(C, Session), ConnectError>
    where
        F: Future<Output = Result<C, diesel::ConnectionError>>,
    {
        let began = Instant::now();
        let deadline = began + self.budget;
        let mut attempts = 0;
        let mut last: Option<Failure> = None;
        loop {
            attempts += 1;
            let attempt = async {
                // Never closed.
                let _turn = match turns {
                    Turns::Common => self.turns.acquire().await,
                    Turns::Spare => self.spare.acquire().await,
                };
                let handshake = self.attempt().await?;
                let session = handshake.session();
                let connection = setup(handshake).await.map_err(Failure::setup)?;
                Ok::<_, Failure>((connection, session))
            };
            let failure = match timeout_at(deadline, attempt).await {
                Ok(Ok(connected)) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let error =
                        ConnectError::timed_out(last, self.budget, attempts, began.elapsed());
                    on_failure(&error);
                    return Err(error);
                }
            };

            let pause = backoff::pause(self.failures.fetch_add(1, Ordering::Relaxed));
            let patience = match failure.persistence() {
                Persistence::Final => Duration::ZERO,
                Persistence::Brief => BRIEF.min(self.budget),
                Persistence::Patient => self.budget,
            };
            let error = ConnectError::new(failure.clone(), attempts, began.elapsed());
            on_failure(&error);
            if began.elapsed() + pause >= patience {
                return Err(error);
            }
            tracing::debug!(error = %error, pause = ?pause, "connecting failed, trying again");
            last = Some(failure);
            sleep(pause).await;
        }
    }

    /// Resolves once every connection that was made here is closed.
    pub(crate) async fn closed(&self) {
        self.open.close();
        self.open.wait().await;
    }

    async fn attempt(&self) -> Result<Handshake, Failure> {
        #[cfg(unix)]
        if !self.sockets.is_empty() {
            return self.attempt_unix().await;
        }
        let (observed, handover) = (Arc::new(Observed::new()), Arc::new(Handover::new()));
        let tls = self.tls.as_ref().map(|tls| tls.0.clone());
        let wire = {
            let (observed, handover) = (Arc::clone(&observed), Arc::clone(&handover));
            let tracker = self.open.clone();
            Wrapping::new(tls, move |transport| {
                let open = tracker.token();
                let channel = Channel {
                    transport,
                    _open: open,
                };
                Wire::new(channel, Arc::clone(&observed), Arc::clone(&handover))
            })
        };
        let (client, connection) = self.config.connect(wire).await.map_err(Failure::postgres)?;
        let driver = Driver::Tcp(Box::new(connection));
        Ok(self.handshake(client, driver, observed, handover, None))
    }

    /// Postgres speaks no TLS there, so that there is no connector to slip the wire under.
    #[cfg(unix)]
    async fn attempt_unix(&self) -> Result<Handshake, Failure> {
        let mut failure = None;
        for path in &self.sockets {
            let stream = match tokio::net::UnixStream::connect(path).await {
                Ok(stream) => stream,
                Err(error) => {
                    failure = Some(Failure::io(error));
                    continue;
                }
            };
            let (observed, handover) = (Arc::new(Observed::new()), Arc::new(Handover::new()));
            let channel = Channel {
                transport: Transport::Unix(stream),
                _open: self.open.token(),
            };
            let wire = Wire::new(channel, Arc::clone(&observed), Arc::clone(&handover));
            let mut config = self.config.clone();
            config.ssl_mode(pg::SslMode::Disable);
            match config.connect_raw(wire, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    let driver = Driver::Unix(Box::new(connection));
                    let socket = Some(path.clone());
                    return Ok(self.handshake(client, driver, observed, handover, socket));
                }
                Err(error) => failure = Some(Failure::postgres(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::io(io::ErrorKind::NotFound.into())))
    }

    fn handshake(
        &self,
        client: Client,
        driver: Driver,
        observed: Arc<Observed>,
        handover: Arc<Handover>,
        socket: Option<std::path::PathBuf>,
    ) -> Handshake {
        let canceller = Canceller::new(cancel::Parts {
            token: client.cancel_token(),
            tls: self.tls.as_ref().map(|tls| tls.0.clone()),
            socket,
            runtime: Handle::current(),
            timed: self.timed,
        });
        Handshake {
            client,
            driver,
            handover,
            session: Session::new(observed, canceller),
            naming: Arc::clone(&self.naming),
        }
    }
}

/// Which attempts wait for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turns {
    /// As many at the same time as the policy allows.
    Common,
    /// One at a time, beside the others.
    Spare,
}

/// For failures that a hiccup explains as well as an outage: people wait for the message.
const BRIEF: Duration = Duration::from_secs(1);

const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// `MakeRustlsConnect` has no `Debug`.
struct Tls(MakeRustlsConnect);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}
