//! [`Policy`]: the numbers, derived from one another and checked together once.

use std::time::Duration;

/// How connections live, are checked, and are waited for.
///
/// Everything is derived from one number that you know from Neon's console: after how long of quiet
/// the compute is suspended. Set what differs, and [`build`](PolicyBuilder::build) refuses what
/// contradicts.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`suspend_after`](PolicyBuilder::suspend_after) | 300 s | Neon's default; the Free plan has no other |
/// | [`max_lifetime`](PolicyBuilder::max_lifetime) | 4/5 of it (240 s) | opening a session is activity, so no connection that is younger than the window can have slept through a suspension |
/// | [`idle_timeout`](PolicyBuilder::idle_timeout) | 1/2 of it (150 s) | gives sockets back long before the proxy or a NAT forgets them |
/// | [`max_size`](PolicyBuilder::max_size) | 10 | HikariCP's and sqlx's; see `docs/sizing.md` |
/// | [`checkout_timeout`](PolicyBuilder::checkout_timeout) | 30 s | HikariCP's `connectionTimeout` |
/// | [`connect_timeout`](PolicyBuilder::connect_timeout) | the URL's, else 15 s | Neon's guide asks for 10 to 15 s, since a cold start happens inside it |
/// | [`validation_timeout`](PolicyBuilder::validation_timeout) | 2 s | only a silently dead connection takes that long, and one discovery retires all of its generation |
/// | [`validation_bypass`](PolicyBuilder::validation_bypass) | 500 ms | HikariCP's `aliveBypassWindowMs` |
/// | [`max_connecting`](PolicyBuilder::max_connecting) | 4 | Neon's proxy limits the attempts per endpoint, and a crowd wakes a compute no faster |
/// | [`min_idle`](PolicyBuilder::min_idle) | 0 | connections that are kept up keep the compute awake |
/// | [`retry_attempts`](PolicyBuilder::retry_attempts) | 5 | Neon's guide to resilient applications |
/// | [`retry_budget`](PolicyBuilder::retry_budget) | the checkout timeout | who waits that long for a connection waits as long for an answer |
/// | [`slow_checkout_threshold`](PolicyBuilder::slow_checkout_threshold) | 2 s | sqlx's `acquire_slow_threshold` |
/// | [`leak_detection_threshold`](PolicyBuilder::leak_detection_threshold) | 60 s | far beyond a request; a forgotten transaction keeps the compute awake |
/// | [`named_statements`](PolicyBuilder::named_statements) | asked | poolers differ, and a wrong guess runs somebody else's statement |
/// | [`statement_cache`](PolicyBuilder::statement_cache) | 100 | sqlx's and asyncpg's; the server keeps each of them per connection |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    suspend_after: Option<Duration>,
    max_lifetime: Duration,
    idle_timeout: Duration,
    max_size: u32,
    checkout_timeout: Duration,
    connect_timeout: Duration,
    validation_timeout: Duration,
    validation_bypass: Duration,
    max_connecting: u32,
    min_idle: u32,
    retry_attempts: u32,
    retry_budget: Duration,
    slow_checkout_threshold: Option<Duration>,
    leak_detection_threshold: Option<Duration>,
    named_statements: NamedStatements,
    statement_cache: usize,
}

/// Whether a [`Connection`](crate::Connection) may give the server names for statements that come
/// again, so that they are parsed and planned once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NamedStatements {
    /// On Neon's direct endpoints; elsewhere if the other side, asked once a pool, proves to be
    /// Postgres itself or a pooler that tracks prepared statements. The question rides with the first
    /// statement that could have a name.
    #[default]
    Detect,
    /// Always. Behind a pooler that does not track them, one process's statement runs under another's
    /// name, with another's parameters: only set this where the pooler is known to.
    Always,
    /// Never.
    Never,
}

impl Policy {
    /// Begins with the defaults.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// The quiet time after which Neon suspends the compute; `None` where it never does.
    pub fn suspend_after(&self) -> Option<Duration> {
        self.suspend_after
    }

    /// The age past which a connection is not handed out any more.
    pub fn max_lifetime(&self) -> Duration {
        self.max_lifetime
    }

    /// How long a connection may lie unused in the pool.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// How many connections there are at most.
    pub fn max_size(&self) -> u32 {
        self.max_size
    }

    /// How long a caller waits for a connection at most, all included.
    pub fn checkout_timeout(&self) -> Duration {
        self.checkout_timeout
    }

    /// The budget for a new connection: name look-up, TCP, TLS, authentication, the compute's cold
    /// start, and the attempts after a transient failure.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// How long a connection may take to answer when it is checked.
    pub fn validation_timeout(&self) -> Duration {
        self.validation_timeout
    }

    /// A connection that was heard from so recently is handed out unchecked.
    pub fn validation_bypass(&self) -> Duration {
        self.validation_bypass
    }

    /// How many connections are made at the same time at most.
    pub fn max_connecting(&self) -> u32 {
        self.max_connecting
    }

    /// How many idle connections are kept up.
    pub fn min_idle(&self) -> u32 {
        self.min_idle
    }

    /// How often [`Pool::run`](crate::Pool::run) and [`Pool::transaction`](crate::Pool::transaction)
    /// do their work at most.
    pub fn retry_attempts(&self) -> u32 {
        self.retry_attempts
    }

    /// How long [`Pool::run`](crate::Pool::run) and [`Pool::transaction`](crate::Pool::transaction)
    /// begin another attempt.
    pub fn retry_budget(&self) -> Duration {
        self.retry_budget
    }

    /// A checkout that takes longer is warned of.
    pub fn slow_checkout_threshold(&self) -> Option<Duration> {
        self.slow_checkout_threshold
    }

    /// A connection that is held for longer is warned of.
    pub fn leak_detection_threshold(&self) -> Option<Duration> {
        self.leak_detection_threshold
    }

    /// Whether statements that come again get names.
    pub fn named_statements(&self) -> NamedStatements {
        self.named_statements
    }

    /// How many named statements each connection keeps at most.
    pub fn statement_cache(&self) -> usize {
        self.statement_cache
    }

    /// How often idle connections are looked through for ones to close.
    pub(crate) fn reaper_rate(&self) -> Duration {
        let shortest = self.idle_timeout.min(self.max_lifetime);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(30))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::derive(&PolicyBuilder::default())
    }
}

impl Policy {
    fn derive(set: &PolicyBuilder) -> Self {
        let suspend_after = set.suspend_after.unwrap_or(Some(DEFAULT_WINDOW));
        let max_lifetime = set.max_lifetime.unwrap_or(match suspend_after {
            Some(window) => window / 5 * 4,
            None => Duration::from_secs(30 * 60),
        });
        let connect_timeout = set.connect_timeout.unwrap_or(match set.checkout_timeout {
            Some(timeout) => DEFAULT_CONNECT.min(timeout),
            None => DEFAULT_CONNECT,
        });
        let checkout_timeout = set
            .checkout_timeout
            .unwrap_or(DEFAULT_CHECKOUT.max(connect_timeout));
        Self {
            suspend_after,
            max_lifetime,
            idle_timeout: set.idle_timeout.unwrap_or(match suspend_after {
                Some(window) => (window / 2).min(max_lifetime),
                None => Duration::from_secs(10 * 60).min(max_lifetime),
            }),
            max_size: set.max_size.unwrap_or(10),
            checkout_timeout,
            connect_timeout,
            validation_timeout: set
                .validation_timeout
                .unwrap_or(DEFAULT_VALIDATION.min(connect_timeout)),
            validation_bypass: set
                .validation_bypass
                .unwrap_or((max_lifetime / 10).min(Duration::from_millis(500))),
            max_connecting: set.max_connecting.unwrap_or(4),
            min_idle: set.min_idle.unwrap_or(0),
            retry_attempts: set.retry_attempts.unwrap_or(5),
            retry_budget: set.retry_budget.unwrap_or(checkout_timeout),
            slow_checkout_threshold: set
                .slow_checkout_threshold
                .unwrap_or(Some(Duration::from_secs(2))),
            leak_detection_threshold: set
                .leak_detection_threshold
                .unwrap_or(Some(Duration::from_secs(60))),
            named_statements: set.named_statements,
            statement_cache: set.statement_cache.unwrap_or(DEFAULT_STATEMENTS),
        }
    }
}

/// Sets what differs from the defaults; see [`Policy`] for those and their reasons.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyBuilder {
    suspend_after: Option<Option<Duration>>,
    max_lifetime: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_size: Option<u32>,
    checkout_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    validation_timeout: Option<Duration>,
    validation_bypass: Option<Duration>,
    max_connecting: Option<u32>,
    min_idle: Option<u32>,
    retry_attempts: Option<u32>,
    retry_budget: Option<Duration>,
    slow_checkout_threshold: Option<Option<Duration>>,
    leak_detection_threshold: Option<Option<Duration>>,
    named_statements: NamedStatements,
    statement_cache: Option<usize>,
}

impl PolicyBuilder {
    /// The *scale to zero* setting of your compute. Default: 300 s. Neon's minimum is 60 s; shorter
    /// windows are taken, for tests.
    ///
    /// Too long a value here hands out connections that were cut by a suspension (they are still
    /// checked); too short a one only reconnects more often.
    #[must_use]
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.suspend_after = Some(Some(window));
        self
    }

    /// The compute never scales to zero: lifetimes become those of an ordinary pool (30 min, idle
    /// 10 min).
    #[must_use]
    pub fn never_suspends(mut self) -> Self {
        self.suspend_after = Some(None);
        self
    }

    /// The age past which a connection is not handed out any more. Default: 4/5 of the window.
    ///
    /// Each connection's own limit lies up to a quarter below this, never above, so that a pool's
    /// connections do not all end at once (HikariCP's variance). A connection that is in use is never
    /// cut.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }

    /// How long a connection may lie unused in the pool. Default: half the window.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// How many connections there are at most. Default: 10.
    ///
    /// Instances × `max_size` must stay below the compute's `max_connections` on a direct endpoint.
    #[must_use]
    pub fn max_size(mut self, connections: u32) -> Self {
        self.max_size = Some(connections);
        self
    }

    /// How long a caller waits for a connection at most, all included. Default: 30 s, or the
    /// connect timeout where that is longer.
    #[must_use]
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.checkout_timeout = Some(timeout);
        self
    }

    /// The budget for a new connection, retries and the cold start included. Default: the URL's
    /// `connect_timeout`, else 15 s.
    ///
    /// Below about 5 s a cold start looks like an outage.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long a connection may take to answer when it is checked. Default: 2 s.
    ///
    /// A database that is merely slow should answer within it; what does not is taken for dead.
    #[must_use]
    pub fn validation_timeout(mut self, timeout: Duration) -> Self {
        self.validation_timeout = Some(timeout);
        self
    }

    /// A connection that was heard from so recently is handed out unchecked. Default: 500 ms. Zero
    /// checks every time.
    #[must_use]
    pub fn validation_bypass(mut self, window: Duration) -> Self {
        self.validation_bypass = Some(window);
        self
    }

    /// How many connections are made at the same time at most. Default: 4.
    ///
    /// After a suspension every caller wants one at once. Neon's proxy limits the attempts per endpoint
    /// and answers the rest with `Too many connections to this endpoint`.
    #[must_use]
    pub fn max_connecting(mut self, connections: u32) -> Self {
        self.max_connecting = Some(connections);
        self
    }

    /// How many idle connections are kept up. Default: none.
    ///
    /// Replacing them as they age is activity, so this is refused unless the compute
    /// [never suspends](Self::never_suspends).
    #[must_use]
    pub fn min_idle(mut self, connections: u32) -> Self {
        self.min_idle = Some(connections);
        self
    }

    /// How often [`Pool::run`](crate::Pool::run) and [`Pool::transaction`](crate::Pool::transaction)
    /// do their work at most. Default: 5. One means that nothing is tried again.
    #[must_use]
    pub fn retry_attempts(mut self, attempts: u32) -> Self {
        self.retry_attempts = Some(attempts);
        self
    }

    /// How long [`Pool::run`](crate::Pool::run) and [`Pool::transaction`](crate::Pool::transaction)
    /// begin another attempt. Default: the checkout timeout.
    #[must_use]
    pub fn retry_budget(mut self, budget: Duration) -> Self {
        self.retry_budget = Some(budget);
        self
    }

    /// A checkout that takes longer is warned of, through `tracing`. Default: 2 s. `None` turns the
    /// warning off.
    #[must_use]
    pub fn slow_checkout_threshold(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.slow_checkout_threshold = Some(limit.into());
        self
    }

    /// A connection that is held for longer is warned of once, through `tracing`, with the place that
    /// asked for it. Default: 60 s. `None` turns the warning off.
    #[must_use]
    pub fn leak_detection_threshold(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.leak_detection_threshold = Some(limit.into());
        self
    }

    /// Whether statements that come again get names. Default: [`NamedStatements::Detect`].
    #[must_use]
    pub fn named_statements(mut self, names: NamedStatements) -> Self {
        self.named_statements = names;
        self
    }

    /// How many named statements each connection keeps at most; the one that was not used for longest
    /// goes first. Default: 100. Zero names none.
    ///
    /// Each takes a few kilobytes on the server, for as long as the connection lives.
    #[must_use]
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = Some(statements);
        self
    }

    /// Derives what was not set, and checks everything against everything.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the two settings that contradict.
    pub fn build(self) -> Result<Policy, PolicyError> {
        let policy = Policy::derive(&self);

        for (setting, value) in [
            (
                "suspend_after",
                policy.suspend_after.unwrap_or(Duration::MAX),
            ),
            ("max_lifetime", policy.max_lifetime),
            ("idle_timeout", policy.idle_timeout),
            ("checkout_timeout", policy.checkout_timeout),
            ("connect_timeout", policy.connect_timeout),
            ("validation_timeout", policy.validation_timeout),
        ] {
            if value.is_zero() {
                return Err(PolicyError::Zero { setting });
            }
        }
        for (setting, value) in [
            ("max_size", policy.max_size),
            ("max_connecting", policy.max_connecting),
            ("retry_attempts", policy.retry_attempts),
        ] {
            if value == 0 {
                return Err(PolicyError::Zero { setting });
            }
        }
        if policy.min_idle > 0 && policy.suspend_after.is_some() {
            return Err(PolicyError::KeepsAwake {
                setting: "min_idle",
            });
        }
        if policy.min_idle > policy.max_size {
            return Err(PolicyError::MoreThanMaxSize {
                setting: "min_idle",
            });
        }

        let below = |setting, value, limit_setting, limit| match value < limit {
            true => Ok(()),
            false => Err(PolicyError::NotBelow {
                setting,
                value,
                limit_setting,
                limit,
            }),
        };
        let at_most = |setting, value, limit_setting, limit| match value <= limit {
            true => Ok(()),
            false => Err(PolicyError::Above {
                setting,
                value,
                limit_setting,
                limit,
            }),
        };
        if let Some(window) = policy.suspend_after {
            below("max_lifetime", policy.max_lifetime, "suspend_after", window)?;
            below(
                "validation_bypass",
                policy.validation_bypass,
                "suspend_after",
                window,
            )?;
        }
        at_most(
            "idle_timeout",
            policy.idle_timeout,
            "max_lifetime",
            policy.max_lifetime,
        )?;
        at_most(
            "connect_timeout",
            policy.connect_timeout,
            "checkout_timeout",
            policy.checkout_timeout,
        )?;
        at_most(
            "validation_timeout",
            policy.validation_timeout,
            "checkout_timeout",
            policy.checkout_timeout,
        )?;
        Ok(policy)
    }

    /// Takes the URL's `connect_timeout` where none was set here, as far as what was set allows.
    pub(crate) fn or_connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        let bound = self.checkout_timeout.unwrap_or(Duration::MAX);
        self.connect_timeout = self
            .connect_timeout
            .or(timeout.map(|timeout| timeout.min(bound)));
        self
    }
}

/// Settings contradict.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A setting is zero that must not be.
    #[error("{setting} must be more than zero")]
    Zero {
        /// Which one.
        setting: &'static str,
    },
    /// A setting would keep the compute awake.
    #[error(
        "{setting} keeps the compute awake, and you pay for it: leave it out, or declare with \
         never_suspends() that scale to zero is off"
    )]
    KeepsAwake {
        /// The setting.
        setting: &'static str,
    },
    /// More connections are asked for than there may be.
    #[error("{setting} must not be above max_size")]
    MoreThanMaxSize {
        /// The setting.
        setting: &'static str,
    },
    /// A setting is not below the one that bounds it.
    #[error("{setting} ({value:?}) must be below {limit_setting} ({limit:?})")]
    NotBelow {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: Duration,
        /// The setting that bounds it.
        limit_setting: &'static str,
        /// That one's value.
        limit: Duration,
    },
    /// A setting is above the one that bounds it.
    #[error("{setting} ({value:?}) must not be above {limit_setting} ({limit:?})")]
    Above {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: Duration,
        /// The setting that bounds it.
        limit_setting: &'static str,
        /// That one's value.
        limit: Duration,
    },
}

const DEFAULT_WINDOW: Duration = Duration::from_secs(300);
const DEFAULT_CONNECT: Duration = Duration::from_secs(15);
const DEFAULT_CHECKOUT: Duration = Duration::from_secs(30);
const DEFAULT_VALIDATION: Duration = Duration::from_secs(2);
const DEFAULT_STATEMENTS: usize = 100;

crate::util::debug_is_display!(PolicyError);

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn everything_follows_from_the_window() {
        let policy = Policy::default();
        assert_eq!(policy, Policy::builder().build().unwrap());
        assert_eq!(policy.max_lifetime(), secs(240));
        assert_eq!(policy.idle_timeout(), secs(150));

        let minute = Policy::builder().suspend_after(secs(60)).build().unwrap();
        assert_eq!(minute.max_lifetime(), secs(48));
        assert_eq!(minute.idle_timeout(), secs(30));

        let never = Policy::builder().never_suspends().build().unwrap();
        assert_eq!(never.max_lifetime(), secs(1800));
        assert_eq!(never.idle_timeout(), secs(600));
    }

    #[test]
    fn any_window_gives_a_policy_that_holds() {
        for millis in [10, 100, 999, 60_000, 300_000, 604_800_000] {
            let window = Duration::from_millis(millis);
            let policy = Policy::builder().suspend_after(window).build().unwrap();
            assert!(policy.max_lifetime() < window);
            assert!(policy.idle_timeout() <= policy.max_lifetime());
            assert!(policy.validation_bypass() < window);
        }
    }

    #[test]
    fn a_longer_connect_timeout_lengthens_what_contains_it() {
        let policy = Policy::builder().or_connect_timeout(Some(secs(45))).build();
        assert_eq!(policy.unwrap().checkout_timeout(), secs(45));
        let set = Policy::builder()
            .connect_timeout(secs(5))
            .or_connect_timeout(Some(secs(45)));
        assert_eq!(set.build().unwrap().connect_timeout(), secs(5));
    }

    #[test]
    fn a_shorter_checkout_timeout_shortens_what_it_contains() {
        let set = Policy::builder().checkout_timeout(secs(1));
        let policy = set.or_connect_timeout(Some(secs(30))).build().unwrap();
        assert_eq!(policy.connect_timeout(), secs(1));
        assert_eq!(policy.validation_timeout(), secs(1));
        assert_eq!(set.build().unwrap().connect_timeout(), secs(1));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let message = |builder: PolicyBuilder| builder.build().unwrap_err().to_string();
        assert_eq!(
            message(Policy::builder().max_lifetime(secs(300))),
            "max_lifetime (300s) must be below suspend_after (300s)"
        );
        assert_eq!(
            message(Policy::builder().idle_timeout(secs(241))),
            "idle_timeout (241s) must not be above max_lifetime (240s)"
        );
        assert_eq!(
            message(
                Policy::builder()
                    .checkout_timeout(secs(10))
                    .connect_timeout(secs(15))
            ),
            "connect_timeout (15s) must not be above checkout_timeout (10s)"
        );
        assert_eq!(
            message(Policy::builder().max_size(0)),
            "max_size must be more than zero"
        );
        assert_eq!(
            message(Policy::builder().validation_bypass(secs(400))),
            "validation_bypass (400s) must be below suspend_after (300s)"
        );
    }

    #[test]
    fn what_keeps_a_compute_awake_is_refused_where_it_could_sleep() {
        let error = Policy::builder().min_idle(1).build().unwrap_err();
        assert!(error.to_string().contains("never_suspends"), "{error}");
        let awake = Policy::builder().min_idle(1).never_suspends();
        assert_eq!(awake.build().unwrap().min_idle(), 1);
        awake.min_idle(11).build().unwrap_err();
    }
}
