//! [`Channel`]: an open stream to a server.

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::transport::Transport;

/// A stream to the server.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) transport: Transport,
    /// LeakDetector as long as the socket is open, so that closing a pool can wait for it.
    pub(crate) _open: TaskTrackerToken,
}
