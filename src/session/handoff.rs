//! [`StreamHandoff`]: hands the stream of a login over to a [`SessionHandle`](super::SessionHandle).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;

use super::channel::Channel;
use crate::util::lock;

/// Holds the stream that a [`LoginTap`](super::LoginTap) leaves once the session is established.
#[derive(Debug)]
pub(crate) struct StreamHandoff {
    /// While set, the tap passes nothing on behind the last ReadyForQuery that tokio-postgres is to see, and leaves its
    /// stream here when it is dropped.
    holding: AtomicBool,
    /// How many responses tokio-postgres is to see.
    pub(super) responses: u64,
    pub(super) left: Mutex<Option<(Channel, BytesMut)>>,
}

impl StreamHandoff {
    /// Holds the stream once tokio-postgres has seen so many responses: the login is one, and each query of
    /// tokio-postgres's own is one more.
    pub(crate) fn after(responses: u64) -> Self {
        Self {
            holding: AtomicBool::new(true),
            responses,
            left: Mutex::new(None),
        }
    }

    /// Leaves the stream with tokio-postgres.
    pub(crate) fn decline(&self) {
        self.holding.store(false, Ordering::Release);
    }

    /// Takes the stream of a tap that has been dropped, with the bytes that were read and not passed on.
    pub(crate) fn take(&self) -> Option<(Channel, BytesMut)> {
        lock(&self.left).take()
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Acquire)
    }
}

impl Drop for StreamHandoff {
    /// Sends Terminate on a stream that nobody has taken: its login lost a race or was given up.
    fn drop(&mut self) {
        if let Some((channel, _)) = self.take() {
            channel.terminate();
        }
    }
}
