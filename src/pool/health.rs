//! [`Health`], [`Doubt`] and [`RoundTrip`]: what the latest connects and checks say about the server. [`Connecting`]: a connect
//! that is under way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::evict::EvictReason;
use crate::connect::ConnectError;
use crate::util::clock::{LastSeen, Moment};
use crate::util::lock;

/// The last failures of a pool, and whether its logins prove anything.
#[derive(Debug, Default)]
pub(crate) struct Health {
    connects: Mutex<Connects>,
    check_failure: Mutex<Option<(EvictReason, Instant)>>,
    died_after_login: AtomicU32,
    /// When a caller last got no connection, if none has got one since.
    refused: Mutex<Option<Instant>>,
    /// Whether there is such a moment: callers that are served look here alone.
    has_refused: AtomicBool,
    /// When a connection last failed its check by silence, and for how long it had been silent.
    silent_death: Mutex<Option<(Moment, Duration)>>,
    pub(super) round_trip: RoundTrip,
}

/// What the latest connects say.
#[derive(Debug, Default)]
struct Connects {
    failure: Option<(ConnectError, Instant)>,
    /// How many are under way of which an attempt has failed.
    failing: u32,
}

impl Health {
    /// Returns why the last attempt to connect failed, and when; `None` once one has succeeded, unless others go on failing:
    /// those who wait for them are to be told why.
    pub(crate) fn connect_failure(&self) -> Option<(ConnectError, Instant)> {
        lock(&self.connects).failure.clone()
    }

    /// Returns why the last check failed, and when; `None` after one that was passed.
    pub(crate) fn check_failure(&self) -> Option<(EvictReason, Instant)> {
        lock(&self.check_failure).clone()
    }

    /// Returns how many connections have ended before they answered anything, since a check was passed.
    ///
    /// A pooler logs clients in even if the server behind it is gone. Only this count tells.
    pub(crate) fn died_after_login(&self) -> u32 {
        self.died_after_login.load(Ordering::Relaxed)
    }

    /// Returns whether a login says nothing of the server: connections have ended behind theirs, or the pooler was the one
    /// that answered the last check.
    pub(crate) fn logins_prove_nothing(&self) -> bool {
        self.died_after_login() > 0 || lock(&self.check_failure).as_ref().is_some_and(is_poolers)
    }

    pub(super) fn record_connected(&self) {
        let mut connects = lock(&self.connects);
        if connects.failing == 0 {
            connects.failure = None;
        }
        drop(connects);
        if !self.logins_prove_nothing() {
            *lock(&self.check_failure) = None;
        }
    }

    /// Begins a connect of one or more attempts.
    pub(super) fn connecting(&self) -> Connecting<'_> {
        Connecting {
            health: self,
            is_failing: false,
        }
    }

    pub(super) fn record_check_passed(&self) {
        self.died_after_login.store(0, Ordering::Relaxed);
        *lock(&self.check_failure) = None;
    }

    pub(super) fn record_check_failed(&self, reason: &EvictReason) {
        let mut last = lock(&self.check_failure);
        // Silence says less than an error does.
        if last.is_none() || !matches!(reason, EvictReason::NoAnswer { .. }) {
            *last = Some((reason.clone(), Instant::now()));
        }
    }

    /// Returns when a caller last got no connection; `None` once one has got one.
    pub(super) fn refused(&self) -> Option<Instant> {
        *lock(&self.refused)
    }

    pub(super) fn record_refused(&self) {
        *lock(&self.refused) = Some(Instant::now());
        self.has_refused.store(true, Ordering::Release);
    }

    pub(super) fn record_served(&self) {
        if self.has_refused.load(Ordering::Relaxed)
            && self.has_refused.swap(false, Ordering::AcqRel)
        {
            *lock(&self.refused) = None;
        }
    }

    /// Returns when a connection last failed its check by silence, and for how long it had been silent.
    pub(super) fn silent_death(&self) -> Option<(Moment, Duration)> {
        *lock(&self.silent_death)
    }

    pub(super) fn record_silent_death(&self, silence: impl FnOnce(&Moment) -> Duration) {
        let now = Moment::now();
        *lock(&self.silent_death) = Some((now, silence(&now)));
    }

    pub(super) fn record_died_after_login(&self) {
        self.died_after_login.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns whether a check was answered by a pooler that has no server: PgBouncer sends 08P01 then.
fn is_poolers((reason, _): &(EvictReason, Instant)) -> bool {
    let answer = reason.instead_of_answer();
    answer.is_some_and(|(_, sqlstate)| sqlstate == Some("08P01"))
}

/// A connect that is under way.
pub(super) struct Connecting<'a> {
    health: &'a Health,
    is_failing: bool,
}

impl Connecting<'_> {
    pub(super) fn record_failure(&mut self, error: &ConnectError) {
        let mut connects = lock(&self.health.connects);
        connects.failure = Some((error.clone(), Instant::now()));
        connects.failing += u32::from(!self.is_failing);
        self.is_failing = true;
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        if self.is_failing {
            lock(&self.health.connects).failing -= 1;
        }
    }
}

/// When a connection was last found dead or late. Its siblings are in doubt until they are heard from.
#[derive(Debug)]
pub(crate) struct Doubt {
    is_raised: AtomicBool,
    last: LastSeen,
}

impl Doubt {
    pub(super) fn raise(&self) {
        self.last.mark();
        self.is_raised.store(true, Ordering::Release);
    }

    /// Returns whether the doubt is younger than the last sign of life of a connection that is `quiet` for so long.
    pub(super) fn covers(&self, quiet: Duration, now: &Moment) -> bool {
        self.is_raised.load(Ordering::Acquire) && quiet >= self.last.elapsed_at(now)
    }
}

impl Default for Doubt {
    fn default() -> Self {
        Self {
            is_raised: AtomicBool::new(false),
            last: LastSeen::now(),
        }
    }
}

/// The shortest time that the server has lately taken to answer.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    /// In microseconds; 0 before the first answer.
    shortest: AtomicU64,
}

impl RoundTrip {
    /// Records an answer. A longer one counts by an eighth, so that a delay of one answer is soon forgotten.
    pub(super) fn record(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let shortest = match self.shortest.load(Ordering::Relaxed) {
            0 => took,
            shortest => took.min(shortest.saturating_add(took.saturating_sub(shortest) / 8)),
        };
        self.shortest.store(shortest, Ordering::Relaxed);
    }

    /// Returns how long an answer may take before it is late, if it has `bound` to come at all: four round trips, but
    /// not less than [`LATE`], nor more than half of `bound`.
    pub(super) fn late(&self, bound: Duration) -> Duration {
        let shortest = Duration::from_micros(self.shortest.load(Ordering::Relaxed));
        LATE.max(shortest.saturating_mul(4).min(bound / 2))
    }
}

/// An answer that takes longer is late: far above a round trip within a region, and half of what people notice.
const LATE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_login_clears_a_failed_check_unless_logins_prove_nothing() {
        let health = Health::default();
        let ended = EvictReason::Ended {
            sqlstate: None,
            message: "gone".to_owned(),
        };
        let silent = EvictReason::NoAnswer {
            bound: Duration::ZERO,
        };
        health.record_check_failed(&silent);
        health.record_check_failed(&ended);
        health.record_check_failed(&silent);
        assert_eq!(health.check_failure().unwrap().0, ended);
        health.record_died_after_login();
        health.record_connected();
        assert!(health.check_failure().is_some());
        health.record_check_passed();
        assert_eq!(health.died_after_login(), 0);
        assert!(health.check_failure().is_none());
        health.record_check_failed(&silent);
        health.record_connected();
        assert!(health.check_failure().is_none());
        // The pooler that has said this lets anybody in.
        health.record_check_failed(&EvictReason::Ended {
            sqlstate: Some("08P01".to_owned()),
            message: "server login has been failing".to_owned(),
        });
        health.record_connected();
        assert!(health.check_failure().is_some() && health.logins_prove_nothing());
        health.record_check_passed();
        assert!(!health.logins_prove_nothing());
    }

    #[test]
    fn an_answer_is_late_after_four_round_trips() {
        let (round_trip, ms) = (RoundTrip::default(), Duration::from_millis);
        let late = || round_trip.late(ms(4000));
        assert_eq!(late(), LATE);
        round_trip.record(ms(1));
        assert_eq!(late(), LATE);
        // One answer that was lost on the way says little, many tell that the server is far away.
        round_trip.record(ms(300));
        assert_eq!(late(), LATE);
        for _ in 0..50 {
            round_trip.record(ms(300));
        }
        assert!(late() > ms(1100), "{:?}", late());
        for _ in 0..50 {
            round_trip.record(ms(3000));
        }
        assert_eq!(late(), ms(2000), "a dead connection is still found in time");
        assert_eq!(round_trip.late(ms(300)), LATE);
        round_trip.record(ms(1));
        assert_eq!(late(), LATE);
    }
}
