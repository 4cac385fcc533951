//! [`Probe`]: a connect, made step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::diagnosis::{Diagnosis, steps};
use super::error::ConnectError;
use super::failure::Failure;
use super::{Connector, EstablishedSession};
use crate::policy::Policy;
use crate::session::{LoginMethod, SessionStatus};
use crate::transport::{Peer, Progress, TlsError, TlsSession};
use crate::url::{DatabaseUrl, Host};

/// Makes the steps of a connect one by one, and returns the result of each.
///
/// Each step runs the code that a [`Pool`](crate::Pool) connects with, on a stream of its own. No addresses are
/// raced, and no step is retried.
///
/// ```no_run
/// # use std::time::Duration;
/// # use diesel_neon::{DatabaseUrl, diagnose::Probe};
/// # async fn look(url: DatabaseUrl) -> Result<(), Box<dyn std::error::Error>> {
/// let probe = Probe::new(&url, Duration::from_secs(15))?;
/// for host in url.hosts() {
///     for peer in probe.look_up(host).await? {
///         match probe.reach(&peer).await {
///             Ok(()) => println!("{} answers", peer.address()),
///             Err(error) => println!("{error}: {}", error.diagnosis().meaning()),
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Probe {
    connector: Arc<Connector>,
    limit: Duration,
}

/// The result of a TLS handshake.
#[derive(Debug)]
#[non_exhaustive]
pub struct TlsInspection {
    /// The server's certificates, its own first, even if they are not trusted.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The parameters of the TLS session, or why there is none.
    pub session: Result<TlsSession, ConnectError>,
}

/// The result of a login.
#[derive(Debug)]
#[non_exhaustive]
pub struct Login {
    /// The method of authentication. `None` if the server asked for none, or if the login ended before.
    pub method: Option<LoginMethod>,
    /// Whether the server has accepted the client.
    pub is_authenticated: bool,
    /// The time from the client's last message to the end of the login, in which a proxy wakes a compute.
    pub start: Option<Duration>,
    /// Whether that time is long enough for a cold start.
    pub was_cold: bool,
    /// The session, or why there is none.
    pub session: Result<EstablishedSession, ConnectError>,
}

impl Probe {
    /// Prepares to probe the hosts of `url`; no step takes longer than `limit`.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] if the certificates to trust cannot be loaded.
    pub fn new(url: &DatabaseUrl, limit: Duration) -> Result<Self, TlsError> {
        let policy = Policy::builder().connect_timeout(limit).build();
        // The policy refuses only a limit of zero, which `bounded` then applies to each step.
        let connector = Connector::new(url, &policy.unwrap_or_default())?;
        Ok(Self {
            connector: Arc::new(connector),
            limit,
        })
    }

    /// Returns the addresses of `host`, in the order in which they are tried.
    ///
    /// # Errors
    ///
    /// Returns an error if the name has no address, or if the machine's name service does not answer.
    pub async fn look_up(&self, host: &Host) -> Result<Vec<Peer>, ConnectError> {
        let work = self.connector.dialler.resolve(host);
        self.bounded(|| &steps::NAME_TIMEOUT, work).await
    }

    /// Connects to `peer` by TCP or by a Unix socket, sends nothing, and closes the stream.
    ///
    /// # Errors
    ///
    /// Returns an error if the address does not answer within a pool's time for one address (a third of the limit, 5 s
    /// at most), or if the URL means plain text and must not send it there.
    pub async fn reach(&self, peer: &Peer) -> Result<(), ConnectError> {
        let work = self.connector.dialler.open(peer);
        self.bounded(|| &steps::TCP_TIMEOUT, work).await.map(drop)
    }

    /// Makes a TLS handshake with `peer` and closes the stream. Returns `None` if the URL means plain text.
    pub async fn secure(&self, peer: &Peer) -> Option<TlsInspection> {
        let work = async { Ok::<_, Failure>(self.connector.dialler.inspect(peer).await) };
        let began = Instant::now();
        match self.bounded(|| &steps::TLS_TIMEOUT, work).await {
            Ok(seen) => seen.map(|seen| TlsInspection {
                certificates: seen.certificates,
                session: seen
                    .session
                    .map_err(|error| ConnectError::new(error.into(), 1, began.elapsed())),
            }),
            Err(error) => Some(TlsInspection {
                certificates: Vec::new(),
                session: Err(error),
            }),
        }
    }

    /// Connects to `peer` and logs in. A server that is not of the kind that `target_session_attrs` asks for
    /// is an error.
    pub async fn log_in(&self, peer: &Peer) -> Login {
        let status = Arc::new(SessionStatus::new());
        let work = async {
            let progress = Arc::<Progress>::default();
            let transport = self.connector.dialler.connect(peer, &progress).await?;
            let log_in =
                self.connector
                    .log_in(transport, peer.clone(), progress, Arc::clone(&status), None);
            log_in.await
        };
        let late = || match status.login().is_authenticated {
            true => &steps::START_TIMEOUT,
            false => &steps::LOGIN_TIMEOUT,
        };
        let session = self.bounded(late, work).await;
        let trace = status.login();
        Login {
            method: trace.method,
            is_authenticated: trace.is_authenticated,
            start: trace.start,
            was_cold: trace.was_cold,
            session,
        }
    }

    async fn bounded<T, E: Into<Failure>>(
        &self,
        late: impl FnOnce() -> &'static Diagnosis,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ConnectError> {
        let began = Instant::now();
        match timeout(self.limit, step).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(ConnectError::new(error.into(), 1, began.elapsed())),
            Err(_) => Err(ConnectError::late(late(), self.limit, began.elapsed())),
        }
    }
}
