//! [`Establish`]: the interface between a type of connection and the pool.

use diesel::pg::Pg;
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};

pub(crate) use self::sealed::Sealed;
use super::established::EstablishedSession;

/// A connection type that the pool can make out of a session: [`Connection`](crate::Connection) and
/// [`AsyncPgConnection`].
///
/// Other crates cannot implement it: what a pool asks of a connection changes with the pool.
pub trait Establish: Sealed + AsyncConnection<Backend = Pg> + Send + Sized + 'static {
    /// Whether the connection is safe behind a pooler that does not track prepared statements: it must not
    /// name its statements there. Default: `false`.
    const SAFE_BEHIND_POOLERS: bool = false;

    /// Makes a connection of an authenticated session.
    ///
    /// # Errors
    ///
    /// Returns an error if the session cannot be set up; the pool then retries as after a failed connect.
    fn establish_with(
        session: EstablishedSession,
    ) -> impl Future<Output = Result<Self, diesel::ConnectionError>> + Send;

    /// Notes that somebody holds the connection, and reads what has arrived, without waiting.
    ///
    /// The pool calls it before each decision whether to hand the connection out, so that an end or an answer that has
    /// arrived is known by then.
    fn hold(&mut self) {}

    /// Notes that nobody holds the connection any more, and reads what has arrived, without waiting.
    ///
    /// The pool calls it when the connection is given back, before it decides whether to keep it; what is abandoned is
    /// settled from then on.
    fn release(&mut self) {}

    /// Returns whether the response of an abandoned statement is outstanding.
    fn is_abandoned(&mut self) -> bool {
        false
    }
}

mod sealed {
    use crate::connect::PendingSession;

    /// Keeps other crates from implementing [`Establish`](super::Establish).
    pub trait Sealed: Sized {
        /// Makes a connection of a session whose login is under way, if the type can wait for it.
        const BEGIN: Option<fn(PendingSession) -> Self> = None;
    }
}

impl Sealed for AsyncPgConnection {}

impl Establish for AsyncPgConnection {
    async fn establish_with(session: EstablishedSession) -> Result<Self, diesel::ConnectionError> {
        Self::try_from(session.into_client()).await
    }
}

/// Returns whether `begin_test_transaction` has begun the open transaction, which then outlives a checkout.
pub(crate) fn is_in_test_transaction<C: AsyncConnection>(connection: &mut C) -> bool {
    let status = C::TransactionManager::transaction_manager_status_mut(connection);
    let open = status
        .transaction_state()
        .map(|state| &state.in_transaction);
    matches!(open, Ok(Some(transaction)) if transaction.test_transaction)
}
