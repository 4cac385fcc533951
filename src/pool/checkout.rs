//! [`Pool::get`]: how a caller gets a connection. [`PooledConnection`]: how it gives it back.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::check::Examined;
use super::connections::Connections;
use super::entry::PoolEntry;
use super::error::PoolError;
use super::queue::Place;
use super::turn::Turn;
use crate::connect::Establish;
use crate::connection::Connection;

impl<C: Establish> Pool<C> {
    /// Gets a connection that works.
    ///
    /// Callers are served in the order in which they came, each with whatever comes first: a connection that is given
    /// back, one that has answered its check, or a new one. A caller that drops the future leaves nothing behind; a
    /// connect that was begun for it goes on, since the compute is waking anyway, and serves the next.
    ///
    /// # Errors
    ///
    /// [`PoolError::Connect`], in the server's own words, if connecting fails for good: at once, or after a second if
    /// connections are in use, which may come back first. So while a password has been changed, connections that still
    /// work serve on, and one login a second finds out whether the new ones are let in. If the policy's
    /// `checkout_timeout` ends, the step that it ended in: [`PoolError::Exhausted`] while every connection was in use,
    /// [`PoolError::Connecting`], or [`PoolError::Validating`], each with the pool's [`Status`](crate::Status). [`PoolError::Closed`]
    /// if the pool is.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<'_, C>, PoolError>> + Send {
        let connections = Cow::Borrowed(&self.connections);
        check_out(
            connections,
            self.policy().checkout_timeout(),
            Location::caller(),
        )
    }

    /// Gets a connection that works within `timeout`, which takes the place of the policy's `checkout_timeout`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_timeout(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<PooledConnection<'_, C>, PoolError>> + Send {
        check_out(
            Cow::Borrowed(&self.connections),
            timeout,
            Location::caller(),
        )
    }

    /// Gets a connection that outlives the borrow of the pool.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_owned(
        &self,
    ) -> impl Future<Output = Result<PooledConnection<'static, C>, PoolError>> + Send {
        let connections = Cow::Owned(Arc::clone(&self.connections));
        check_out(
            connections,
            self.policy().checkout_timeout(),
            Location::caller(),
        )
    }

    /// As [`get_timeout`](Self::get_timeout), of a connection that outlives the borrow of the pool.
    #[cfg(feature = "blocking")]
    #[track_caller]
    pub(crate) fn get_owned_timeout(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<PooledConnection<'static, C>, PoolError>> + Send + use<C> {
        let connections = Cow::Owned(Arc::clone(&self.connections));
        check_out(connections, timeout, Location::caller())
    }
}

async fn check_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    timeout: Duration,
    asked_at: &'static Location<'static>,
) -> Result<PooledConnection<'a, C>, PoolError> {
    let (entry, waited) = {
        let taken = connections.queue().take_or_ticket();
        match taken.map(|entry| connections.examine(entry, false)) {
            Ok(Examined::Fit(taken)) if !connections.must_run_hook(&taken) => {
                (taken.into_entry(), Duration::ZERO)
            }
            taken => {
                let (mut turn, taken) = Turn::begin(&connections, taken, timeout)?;
                let taken = match taken {
                    Some(taken) => Ok(taken),
                    None => turn.until_served(None).await,
                };
                let taken = match taken {
                    Ok(Examined::Fit(taken)) if !connections.must_run_hook(&taken) => Ok(taken),
                    // Boxed, to keep the future of every other checkout small.
                    taken => Box::pin(turn.until_fit(taken)).await,
                };
                turn.end(taken, asked_at)?
            }
        }
    };
    Ok(hand_out(connections, entry, waited, asked_at))
}

pub(super) fn hand_out<'a, C: Establish>(
    connections: Cow<'a, Arc<Connections<C>>>,
    mut entry: PoolEntry<C>,
    waited: Duration,
    asked_at: &'static Location<'static>,
) -> PooledConnection<'a, C> {
    entry.hand_out(asked_at);
    let connection = PooledConnection {
        entry: Some(entry),
        connections,
    };
    connection.connections.keep_watch();
    let state = &connection.connections.state;
    state.health.record_served();
    state.stats.metrics.handed_out(waited);
    connection
}

impl<C: Establish> Connections<C> {
    /// Returns whether `before_acquire` is to see a connection: there is that hook, and the connection is not new.
    pub(super) fn must_run_hook(&self, entry: &PoolEntry<C>) -> bool {
        self.hooks.before_acquire.is_some() && entry.is_used()
    }
}

/// A connection out of a [`Pool`]. Goes back when it is dropped, if it can still be used.
pub struct PooledConnection<'a, C: Establish = Connection> {
    /// `Some` until it is dropped.
    entry: Option<PoolEntry<C>>,
    connections: Cow<'a, Arc<Connections<C>>>,
}

impl<C: Establish> PooledConnection<'_, C> {
    /// Returns the pool's entry of this connection: its age and its deadline.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "only dropping takes the entry"
    )]
    pub fn entry(&self) -> &PoolEntry<C> {
        self.entry.as_ref().expect("it is not dropped")
    }
}

impl<C: Establish> Drop for PooledConnection<'_, C> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let (since, is_given_up) = entry.take_back();
            let place = match is_given_up {
                true => Place::Suspect,
                false => Place::InUse,
            };
            self.connections.take_back(place, entry);
            self.connections.state.stats.metrics.returned(&since);
        }
    }
}

impl<C: Establish> Deref for PooledConnection<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.entry()
    }
}

impl<C: Establish> DerefMut for PooledConnection<'_, C> {
    #[expect(clippy::expect_used, reason = "only dropping takes the entry")]
    fn deref_mut(&mut self) -> &mut C {
        self.entry.as_mut().expect("it is not dropped")
    }
}

impl<C: Establish> fmt::Debug for PooledConnection<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledConnection")
            .field(self.entry())
            .finish()
    }
}
