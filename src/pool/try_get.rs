//! [`Pool::try_get`]: an idle connection, without waiting.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::check::Examined;
use super::checkout::{PooledConnection, hand_out};
use super::connections::{Connections, Taken};
use super::entry::PoolEntry;
use crate::connect::Establish;

impl<C: Establish> Pool<C> {
    /// Returns an idle connection that was heard from within the policy's `validation_bypass`, if there is one and
    /// nobody waits for it. Sends nothing, so with a hook [`before_acquire`](crate::PoolBuilder::before_acquire) it only
    /// returns connections that nobody has held.
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConnection<'_, C>> {
        try_check_out(Cow::Borrowed(&self.connections), Location::caller())
    }

    /// As [`try_get`](Self::try_get), of a connection that outlives the borrow of the pool.
    #[cfg(feature = "blocking")]
    #[track_caller]
    pub(crate) fn try_get_owned(&self) -> Option<PooledConnection<'static, C>> {
        let connections = Cow::Owned(Arc::clone(&self.connections));
        try_check_out(connections, Location::caller())
    }
}

fn try_check_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    asked_at: &'static Location<'static>,
) -> Option<PooledConnection<'a, C>> {
    let entry = take_fit(&connections)?;
    Some(hand_out(connections, entry, Duration::ZERO, asked_at))
}

/// Takes an idle connection that may be handed out unasked.
fn take_fit<C: Establish>(connections: &Arc<Connections<C>>) -> Option<PoolEntry<C>> {
    let mut others = Vec::new();
    let fit = loop {
        let Some(taken) = connections.queue().take() else {
            break None;
        };
        match connections.examine(taken, false) {
            Examined::Fit(taken) if !connections.must_run_hook(&taken) => break Some(taken),
            Examined::Fit(taken) | Examined::Doubtful(taken) => others.push(taken),
            Examined::Evicted => {}
            Examined::Refused(_) => break None,
        }
    };
    // In their order: the most recently used is on top again.
    others.into_iter().rev().for_each(Taken::let_idle);
    fit.map(Taken::into_entry)
}
