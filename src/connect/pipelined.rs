//! [`PendingSession`]: a session that is in use before the server has answered its login.

use std::error::Error;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Connector;
use super::error::ConnectError;
use super::established::EstablishedSession;
use super::once;
use super::weightiest::WeightiestFailure;
use crate::pooler::PoolerSupport;
use crate::session::{Channel, SessionControl, SessionHandle};
use crate::transport::{Early, PendingTransport};

/// A session whose login is under way: the client has sent all of its messages, and what the session sends leaves
/// without waiting for the server's answer.
///
/// If the login fails for a reason that passes, the next attempt sends the same again. If it fails for good, the session
/// ends with the [`ConnectError`].
pub struct PendingSession {
    transport: PendingTransport,
    session: SessionControl,
    pooler: Arc<PoolerSupport>,
    open: TaskTrackerToken,
}

impl Connector {
    /// Returns whether a session may be in use before its login is answered: the URL says so, and nothing is to be
    /// asked of the server first.
    pub(crate) fn pipelines_login(&self) -> bool {
        self.pipelines_login && self.config.get_target_session_attrs() == TargetSessionAttrs::Any
    }

    /// Makes one attempt within the budget, up to the client's last message.
    pub(crate) async fn begin_once(self: &Arc<Self>) -> Result<PendingSession, ConnectError> {
        let early = Arc::<Early>::default();
        let (connector, shared) = (Arc::clone(self), Arc::clone(&early));
        let connecting = async move {
            let failures = WeightiestFailure::default();
            let attempt = connector.attempt(&failures, Some(&shared));
            once(&connector.dialler, attempt, || failures.take()).await
        };
        self.begin(early, connecting).await
    }

    /// Waits until the client has sent all messages of its login. A task goes on `connecting`, whose attempts share
    /// `early`.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        early: Arc<Early>,
        connecting: impl Future<Output = Result<EstablishedSession, ConnectError>> + Send + 'static,
    ) -> Result<PendingSession, ConnectError> {
        let dialler = Arc::clone(&self.dialler);
        let session =
            SessionControl::of_login(dialler, self.response_timeout, self.pooler.pipelining());
        let (tell, mut told) = oneshot::channel();
        let end = End {
            early: Arc::clone(&early),
            session: session.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let early = &end.early;
            let connected = match select(pin!(connecting), pin!(early.until_over())).await {
                Either::Left((connected, _)) => connected.map_err(Some),
                Either::Right(_) => Err(None),
            };
            match connected {
                Ok(established) => end.succeed(established),
                Err(Some(error)) if !early.is_open() => {
                    let _ = tell.send(error);
                }
                Err(error) => end.fail(error),
            }
        }));
        match select(&mut told, pin!(early.until_open())).await {
            Either::Left((Ok(error), _)) => return Err(error),
            // The task has ended otherwise, and the session knows how.
            Either::Left((Err(_), _)) | Either::Right(_) => {}
        }
        Ok(PendingSession {
            transport: PendingTransport::new(early, task),
            session,
            pooler: Arc::clone(&self.pooler),
            open: self.open.token(),
        })
    }
}

/// The end of a login, which its session waits for.
struct End {
    early: Arc<Early>,
    session: SessionControl,
}

impl End {
    fn succeed(&self, established: EstablishedSession) {
        let login = established.session();
        // Without a stream, the session ends as if its runtime had: when this is dropped.
        if let Ok((channel, read)) = established.into_channel() {
            self.session.logged_in(&login);
            self.early.succeed(channel.transport, read);
        }
    }

    fn fail(&self, error: Option<ConnectError>) {
        if error.is_none() && self.early.is_withdrawn() {
            return self.session.withdraw();
        }
        let words = match &error {
            Some(error) => error.reason(),
            None => "the connection was lost during the login".to_owned(),
        };
        tracing::warn!(error = words, "a login has failed");
        let hint = error.as_ref().map(|error| error.diagnosis().hint());
        let refused = error.filter(|_| !self.early.is_lost());
        let refused = refused.map(|error| Arc::new(error) as Arc<dyn Error + Send + Sync>);
        self.session.not_logged_in(&words, hint, refused);
    }
}

impl Drop for End {
    /// Ends the session, unless the login has succeeded.
    fn drop(&mut self) {
        self.session.forgo_key();
        if self.session.status.is_logging_in() {
            self.session.status.end();
        }
        self.early.fail();
    }
}

impl PendingSession {
    pub(crate) fn session(&self) -> SessionControl {
        self.session.clone()
    }

    /// Makes the session's handle.
    pub(crate) fn into_handle(self) -> (Arc<SessionHandle>, Arc<PoolerSupport>) {
        let channel = Channel {
            transport: self.transport.into(),
            _open: self.open,
        };
        let handle = self.session.take_over(channel, Default::default());
        (handle, self.pooler)
    }
}

impl fmt::Debug for PendingSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingSession").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::Policy;
    use crate::url::DatabaseUrl;

    #[tokio::test]
    async fn nobody_waits_for_the_key_of_a_login_that_has_come_to_no_end() {
        let url = DatabaseUrl::parse("postgresql://u:p@127.0.0.1/d?sslmode=disable").unwrap();
        let policy = Policy::builder().build().unwrap();
        let connector = Connector::new(&url, &policy).unwrap();
        let session =
            SessionControl::of_login(Arc::clone(&connector.dialler), None, Arc::default());
        drop(End {
            early: Arc::default(),
            session: session.clone(),
        });
        assert!(session.status.has_ended());
        let cancelled = session.canceller.cancel_if(|| Some(()));
        let cancelled = tokio::time::timeout(Duration::from_secs(60), cancelled).await;
        assert!(cancelled.expect("no hang").is_ok());
    }
}
