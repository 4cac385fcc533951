//! [`ManagerError`]: why bb8 gets no connection.

use crate::connect::ConnectError;
use crate::pool::evict::EvictReason;

/// What a [`ConnectionManager`](crate::ConnectionManager) reports to bb8.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// Connecting failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// The connection is not handed out any more.
    #[error("{0}")]
    Evicted(EvictReason),
}

crate::util::debug_is_chain!(ManagerError);
