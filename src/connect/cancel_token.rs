//! [`CancelToken`]: stops a statement from outside of its connection.

use std::sync::{Arc, Weak};

use super::error::ConnectError;
use super::once;
use crate::session::SessionHandle;

/// Stops the statement that its connection is running, from anywhere; see
/// [`Connection::cancel_token`](crate::Connection::cancel_token).
#[derive(Clone, Debug)]
pub struct CancelToken {
    session: Weak<SessionHandle>,
    holder: u64,
}

impl CancelToken {
    pub(crate) fn new(session: &Arc<SessionHandle>) -> Self {
        Self {
            session: Arc::downgrade(session),
            holder: session.holder(),
        }
    }

    /// Asks the server to end the statement that the connection is running; the statement then fails with SQLSTATE
    /// `57014`, unless it ends before. Does nothing if no statement runs, or if the connection has gone back to its
    /// pool since the token was made.
    ///
    /// When this returns, the request may still be on its way: proxies confirm it before they pass it on. The
    /// request stops no other statement, since the connection sends none before the response to this one. If the
    /// response is not the error `57014`, the connection is closed, and a statement behind it fails as on a lost
    /// connection ([`is_connection_lost`](crate::DatabaseErrorExt::is_connection_lost)) without having been sent.
    ///
    /// # Errors
    ///
    /// Returns a [`ConnectError`] if the server cannot be reached, or does not take the request within
    /// [`connect_timeout`](crate::PolicyBuilder::connect_timeout).
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let Some(session) = self.session.upgrade() else {
            return Ok(());
        };
        let Some(in_flight) = session.in_flight(self.holder) else {
            return Ok(());
        };
        let canceller = session.canceller();
        let cancel = canceller.cancel_if(|| session.begin_cancel(&in_flight));
        once(canceller.dialler(), async { Ok(cancel.await?) }, || None).await
    }
}
