//! [`EstablishedSession`]: a session that has logged in, before a type of connection takes it over.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::Client;

use super::time_zone::is_utc;
use crate::pooler::PoolerSupport;
use crate::session::{Channel, Driver, SessionControl, SessionHandle, StreamHandoff};

/// An authenticated session on which no statement has run.
///
/// The pool makes connections of sessions; see [`Establish`](crate::Establish).
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

    /// Returns whether the server's setting `TimeZone` is one of the names of UTC, so that a connection need not set it.
    pub fn is_in_utc(&self) -> bool {
        self.parameter("TimeZone").is_some_and(|zone| is_utc(&zone))
    }

    /// Hands the session to tokio-postgres: a task drives it from now on.
    pub fn into_client(self) -> Client {
        self.handoff.decline();
        self.session.drive(self.driver);
        self.client
    }

    /// Takes the session from tokio-postgres, whose buffers are empty: the tap passes it no bytes behind the
    /// login.
    pub(crate) fn into_handle(self) -> io::Result<(Arc<SessionHandle>, Arc<PoolerSupport>)> {
        let (session, pooler) = (self.session(), Arc::clone(&self.pooler));
        let (channel, read) = self.into_channel()?;
        Ok((session.take_over(channel, read), pooler))
    }

    /// Takes the stream, with the bytes that were read of it behind the login.
    pub(super) fn into_channel(self) -> io::Result<(Channel, BytesMut)> {
        drop(self.driver);
        let left = self.handoff.take();
        left.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl fmt::Debug for EstablishedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EstablishedSession").finish_non_exhaustive()
    }
}
