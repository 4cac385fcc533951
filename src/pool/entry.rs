//! [`PoolEntry`]: a connection, and what the pool knows of it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::evict::EvictReason;
use super::hooks::ConnectionMetadata;
use super::leak::CheckoutRecord;
use super::lifetime;
use super::runtimes::Runtime;
use super::stats::{ClosedFor, Stats};
use crate::session::SessionControl;
use crate::util::clock::{self, Moment};

/// A connection with its deadline and its generation.
///
/// It derefs to the connection, which is all that a query needs.
pub struct PoolEntry<C> {
    // Boxed, since pools move the entry on every checkout.
    inner: Box<Inner<C>>,
}

struct Inner<C> {
    connection: C,
    session: SessionControl,
    born: Moment,
    /// The connection's own lifetime: at most `max_lifetime`.
    lifetime: Duration,
    max_lifetime: Duration,
    generation: u64,
    /// When the connection was last inspected for a checkout.
    inspected_at: Moment,
    /// When it last came back, if a hook is to be told.
    released_at: Option<Instant>,
    /// How many callers have held it.
    uses: u64,
    validating: bool,
    /// Why the connection is about to be closed; `None` if bb8 or the end of a runtime closes it.
    closed_for: Option<ClosedFor>,
    runtime: Arc<Runtime>,
    record: Arc<CheckoutRecord>,
    stats: Arc<Stats>,
}

impl<C> PoolEntry<C> {
    pub(crate) fn new(
        connection: C,
        session: SessionControl,
        max_lifetime: Duration,
        generation: u64,
        runtime: Arc<Runtime>,
        record: Arc<CheckoutRecord>,
        stats: Arc<Stats>,
    ) -> Self {
        let born = Moment::now();
        let inner = Inner {
            connection,
            session,
            born,
            lifetime: lifetime::of_one(max_lifetime),
            max_lifetime,
            generation,
            inspected_at: born,
            released_at: None,
            uses: 0,
            validating: false,
            closed_for: None,
            runtime,
            record,
            stats,
        };
        Self {
            inner: Box::new(inner),
        }
    }

    /// Returns how long ago the connection was made.
    pub fn age(&self) -> Duration {
        self.inner.born.elapsed()
    }

    /// Returns the moment from which the connection is not handed out any more.
    pub fn deadline(&self) -> Instant {
        clock::after(self.inner.born.monotonic(), self.inner.lifetime)
    }

    pub(crate) fn is_past_deadline(&self, now: &Moment) -> bool {
        now.since(&self.inner.born) >= self.inner.lifetime
    }

    /// Records when the connection was inspected for a checkout: it saves that checkout another look at the clock.
    pub(crate) fn set_inspected(&mut self, now: &Moment) {
        self.inner.inspected_at = *now;
    }

    /// Returns when the connection was last inspected for a checkout.
    pub(crate) fn inspected_at(&self) -> Instant {
        self.inner.inspected_at.monotonic()
    }

    /// Records the caller that holds the connection from now on.
    pub(crate) fn hand_out(&mut self, asked_at: &'static Location<'static>) {
        self.inner.uses += 1;
        self.inner.record.begin(asked_at, self.inner.inspected_at);
    }

    /// Records that no caller holds the connection any more. Returns since when one has, and whether the pool has given
    /// it up before.
    pub(crate) fn take_back(&self) -> (Moment, bool) {
        let is_given_up = self.inner.record.end();
        (self.inner.inspected_at, is_given_up)
    }

    /// Records that the connection came back now, which a hook will be told.
    pub(crate) fn set_released(&mut self) {
        self.inner.released_at = Some(Instant::now());
    }

    /// Returns whether a caller has held the connection.
    pub(crate) fn is_used(&self) -> bool {
        self.inner.uses > 0
    }

    /// Returns what a hook is told of a connection that nobody has held since `released_at`.
    pub(crate) fn metadata(&self) -> ConnectionMetadata {
        let idle_since = self.inner.released_at;
        ConnectionMetadata {
            age: self.age(),
            idle_for: idle_since.map(|at| at.elapsed()).unwrap_or_default(),
            uses: self.inner.uses,
        }
    }

    /// Returns whether the check on checkout is under way, or was cancelled.
    pub(crate) fn is_validating(&self) -> bool {
        self.inner.validating
    }

    pub(crate) fn set_validating(&mut self, validating: bool) {
        self.inner.validating = validating;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// Closes the connection.
    pub(crate) fn evict(mut self, reason: &EvictReason) {
        self.set_evicted(reason);
    }

    /// Records why the pool closes the connection.
    pub(crate) fn set_evicted(&mut self, reason: &EvictReason) {
        tracing::debug!(reason = %reason, age = ?self.age(), "a connection is evicted");
        self.close_for(reason.into());
    }

    pub(crate) fn close_for(&mut self, reason: ClosedFor) {
        self.inner.closed_for = Some(reason);
    }

    /// Returns the runtime on which the connection was made.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    pub(crate) fn session(&self) -> &SessionControl {
        &self.inner.session
    }
}

impl<C> Deref for PoolEntry<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.inner.connection
    }
}

impl<C> DerefMut for PoolEntry<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.inner.connection
    }
}

impl<C> Drop for Inner<C> {
    fn drop(&mut self) {
        let reason =
            self.closed_for
                .unwrap_or_else(|| match self.born.elapsed() >= self.max_lifetime {
                    _ if self.runtime.has_ended() => ClosedFor::Ended,
                    _ if std::thread::panicking() => ClosedFor::Hook,
                    true => ClosedFor::Lifetime,
                    false => ClosedFor::Idle,
                });
        self.session.close();
        self.stats.closed_for(reason);
    }
}

impl<C> fmt::Debug for PoolEntry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolEntry")
            .field("age", &self.age())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
