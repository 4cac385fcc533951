//! [`CancelToken`]: how a caller stops a statement.

use std::sync::{Arc, Weak};

use super::error::ConnectError;
use super::once;
use crate::session::SessionHandle;

/// Stops what its connection is doing, from anywhere; see
/// [`Connection::cancel_token`](crate::Connection::cancel_token).
#[derive(Clone, Debug)]
pub struct CancelToken {
    session: Weak<SessionHandle>,
    hands: u64,
}

impl CancelToken {
    pub(crate) fn new(session: &Arc<SessionHandle>) -> Self {
        Self {
            session: Arc::downgrade(session),
            hands: session.hands(),
        }
    }

    /// Asks the server to end the statement that the connection is running; it then fails with SQLSTATE
    /// `57014`, if it has not ended before. Where nothing runs, or the connection has gone back to its pool since the
    /// token was made, nothing is asked for.
    ///
    /// When this returns, the request may still be on its way: proxies pass it on behind their answer. It
    /// stops no other statement, since the connection sends none before this one is answered; if that does not
    /// say that the request has stopped it, the connection is closed, and a statement behind it fails as on a lost
    /// connection ([`is_connection_lost`](crate::is_connection_lost)) without having been sent.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] where the server cannot be reached, or does not take note within the time that connecting
    /// may take ([`connect_timeout`](crate::PolicyBuilder::connect_timeout)).
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let Some(session) = self.session.upgrade() else {
            return Ok(());
        };
        let Some(at_work) = session.at_work(self.hands) else {
            return Ok(());
        };
        let canceller = session.canceller();
        let cancel = canceller.cancel_if(|| session.begin_cancel(&at_work));
        once(canceller.dialler(), async { Ok(cancel.await?) }).await
    }
}
