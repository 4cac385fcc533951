//! [`EstablishedSession`]: a session that is there, before it is known who will speak on it.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::pooler::PoolerSupport;
use crate::session::{Driver, SessionControl, SessionHandle, StreamHandoff};

/// A session that is authenticated, and that nothing has been asked of yet.
///
/// It is what a type of connection is made of; see [`Establish`](crate::Establish).
pub struct EstablishedSession {
    pub(super) client: Client,
    pub(super) driver: Driver,
    pub(super) handoff: Arc<StreamHandoff>,
    pub(super) session: SessionControl,
    pub(super) pooler: Arc<PoolerSupport>,
}

impl EstablishedSession {
    pub(crate) fn session(&self) -> SessionControl {
        self.session.clone()
    }

    /// Returns what the server has reported of one of its settings, such as `TimeZone`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.session.status.parameter(name)
    }

    /// Leaves the session with tokio-postgres: a task drives it from now on.
    pub fn into_client(self) -> Client {
        self.handoff.decline();
        self.session.drive(self.driver);
        self.client
    }

    /// Takes the session from tokio-postgres, which has nothing of it in its buffers: the tap passes
    /// nothing on behind the handshake.
    pub(crate) fn into_handle(self) -> io::Result<(SessionHandle, Arc<PoolerSupport>)> {
        drop(self.driver);
        let left = self.handoff.take();
        let (channel, read) = left.ok_or(io::ErrorKind::NotConnected)?;
        let SessionControl {
            status,
            canceller,
            response_timeout,
            ..
        } = self.session;
        Ok((
            SessionHandle::new(channel, read, status, canceller, response_timeout),
            self.pooler,
        ))
    }
}

impl fmt::Debug for EstablishedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EstablishedSession").finish_non_exhaustive()
    }
}
