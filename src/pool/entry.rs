//! [`PoolEntry`]: a connection, and what the pool knows of it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::leak::CheckoutRecord;
use super::stats::{ClosedFor, Stats};
use crate::session::SessionControl;
use crate::util::clock::{self, Moment};

/// A connection with its deadline and its generation, fixed when it is born.
///
/// It derefs to the connection, which is all that a query needs.
pub struct PoolEntry<C> {
    // In a box, since bb8 moves it about on every checkout.
    of: Box<Kept<C>>,
}

struct Kept<C> {
    connection: C,
    session: SessionControl,
    born: Moment,
    /// This connection's own share of the policy's.
    lifetime: Duration,
    max_lifetime: Duration,
    generation: u64,
    /// When it was last found fit to be handed out.
    inspected: Instant,
    validating: bool,
    /// Why it is about to be closed, where that is known.
    closed_for: Option<ClosedFor>,
    record: Arc<CheckoutRecord>,
    stats: Arc<Stats>,
}

impl<C> PoolEntry<C> {
    pub(crate) fn new(
        connection: C,
        session: SessionControl,
        max_lifetime: Duration,
        generation: u64,
        record: Arc<CheckoutRecord>,
        stats: Arc<Stats>,
    ) -> Self {
        let born = Moment::now();
        let of = Kept {
            connection,
            session,
            born,
            // Never more than the cap: past it lies the suspension (HikariCP's variance of a quarter).
            lifetime: max_lifetime.saturating_sub((max_lifetime / 4).mul_f64(fastrand::f64())),
            max_lifetime,
            generation,
            inspected: born.monotonic(),
            validating: false,
            closed_for: None,
            record,
            stats,
        };
        Self { of: Box::new(of) }
    }

    /// How long ago the connection was made.
    pub fn age(&self) -> Duration {
        self.of.born.elapsed()
    }

    /// When it stops being handed out.
    pub fn deadline(&self) -> Instant {
        clock::after(self.of.born.monotonic(), self.of.lifetime)
    }

    pub(crate) fn is_past_deadline(&self, now: &Moment) -> bool {
        now.since(&self.of.born) >= self.of.lifetime
    }

    /// Notes that it is fit to be handed out.
    pub(crate) fn passed_inspection(&mut self, now: &Moment) {
        self.of.inspected = now.monotonic();
    }

    /// Notes in whose hands it is now.
    pub(crate) fn hand_out(&self, asked_at: &'static Location<'static>) {
        self.of.record.begin(asked_at, self.of.inspected);
    }

    /// Notes that it is in nobody's hands any more.
    pub(crate) fn take_back(&self) {
        self.of.record.end();
        self.of.stats.metrics.came_back(self.of.inspected);
    }

    /// Set while the check on checkout is under way; still set when that was cancelled.
    pub(crate) fn is_validating(&self) -> bool {
        self.of.validating
    }

    pub(crate) fn set_validating(&mut self, validating: bool) {
        self.of.validating = validating;
    }

    /// Moves to the generation that begins with this connection.
    pub(crate) fn adopt(&mut self, generation: u64) {
        self.of.generation = generation;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.of.generation
    }

    /// Notes why the pool will not hand it out again.
    pub(crate) fn close_for(&mut self, reason: ClosedFor) {
        self.of.closed_for = Some(reason);
    }

    pub(crate) fn session(&self) -> &SessionControl {
        &self.of.session
    }
}

impl<C> Deref for PoolEntry<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.of.connection
    }
}

impl<C> DerefMut for PoolEntry<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.of.connection
    }
}

impl<C> Drop for Kept<C> {
    fn drop(&mut self) {
        let reason = self
            .closed_for
            .unwrap_or(match self.born.elapsed() >= self.max_lifetime {
                true => ClosedFor::Lifetime,
                false => ClosedFor::Idle,
            });
        self.stats.closed_for(reason);
        self.session.close();
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
