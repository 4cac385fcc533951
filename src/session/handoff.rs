//! [`StreamHandoff`]: where a login leaves its stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

use super::channel::Channel;
use crate::protocol::Messages;

/// Where a [`LoginTap`] leaves its stream for whoever takes it over once the session is there.
#[derive(Debug)]
pub(crate) struct StreamHandoff {
    /// While set, nothing behind the last ReadyForQuery that tokio-postgres is to see is passed on, and a
    /// dropped tap leaves its stream here.
    holding: AtomicBool,
    /// How many ReadyForQuery tokio-postgres is to see.
    pub(super) answers: u64,
    pub(super) left: Mutex<Option<(Channel, BytesMut)>>,
}

impl StreamHandoff {
    /// Holds the stream once tokio-postgres has seen so many ReadyForQuery: one ends the login, and each
    /// question of its own takes one more.
    pub(crate) fn after(answers: u64) -> Self {
        Self {
            holding: AtomicBool::new(true),
            answers,
            left: Mutex::new(None),
        }
    }

    /// The stream stays where it is.
    pub(crate) fn decline(&self) {
        self.holding.store(false, Ordering::Release);
    }

    /// The stream of a tap that has been dropped, and what was read of it but not passed on.
    pub(crate) fn take(&self) -> Option<(Channel, BytesMut)> {
        let left = self.left.lock();
        left.unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Acquire)
    }
}

impl Drop for StreamHandoff {
    /// Says goodbye on a stream that nobody has taken: that of a login that lost a race or was given up.
    fn drop(&mut self) {
        if let Some((mut channel, _)) = self.take() {
            let mut goodbye = Messages::default();
            goodbye.terminate();
            channel.transport.close_with(goodbye.as_bytes());
        }
    }
}
