//! [`Channel`]: an open stream to a server.

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::Messages;
use crate::transport::Transport;

/// An open stream to a server.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) transport: Transport,
    /// Lives as long as the socket is open, so that closing a pool can wait for it.
    pub(crate) _open: TaskTrackerToken,
}

impl Channel {
    /// Sends Terminate without waiting, and closes the stream.
    pub(super) fn terminate(mut self) {
        let mut messages = Messages::default();
        messages.terminate();
        self.transport.close_with(messages.as_bytes());
    }
}
