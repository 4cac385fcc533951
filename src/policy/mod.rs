//! [`Policy`]: the settings of connections and pools, derived from one another and checked together.

mod builder;
mod error;
mod validate;

use std::time::Duration;

pub use self::builder::PolicyBuilder;
pub use self::error::PolicyError;

/// The settings of connections: their lifetime, their validation, and the time-outs.
///
/// All defaults are derived from one number in Neon's console: the quiet time after which the compute is
/// suspended. Set the values that differ; [`build`](PolicyBuilder::build) refuses contradictions.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`suspend_after`](PolicyBuilder::suspend_after) | 300 s | Neon's default; the Free plan has no other |
/// | [`max_lifetime`](PolicyBuilder::max_lifetime) | 4/5 of `suspend_after` (240 s) | to open a session is activity, so no connection that is younger than `suspend_after` can have idled through a suspension |
/// | [`idle_timeout`](PolicyBuilder::idle_timeout) | 1/2 of `suspend_after` (150 s) | closes sockets long before the proxy or a NAT forgets them |
/// | [`max_size`](PolicyBuilder::max_size) | 10 | HikariCP's and sqlx's; see `docs/sizing.md` |
/// | [`checkout_timeout`](PolicyBuilder::checkout_timeout) | 30 s | HikariCP's `connectionTimeout` |
/// | [`connect_timeout`](PolicyBuilder::connect_timeout) | the URL's, else 15 s | Neon's guide asks for 10 to 15 s, since a cold start happens inside it |
/// | [`validation_timeout`](PolicyBuilder::validation_timeout) | 2 s | only a silently dead connection takes that long, and no caller waits for it: after 250 ms another one connects |
/// | [`validation_bypass`](PolicyBuilder::validation_bypass) | 500 ms | HikariCP's `aliveBypassWindowMs` |
/// | [`max_connecting`](PolicyBuilder::max_connecting) | 4 | Neon's proxy limits the attempts per endpoint, and a crowd wakes a compute no faster |
/// | [`min_idle`](PolicyBuilder::min_idle) | 0 | a minimum of idle connections keeps the compute awake |
/// | [`retry_attempts`](PolicyBuilder::retry_attempts) | 5 | Neon's guide to resilient applications |
/// | [`retry_budget`](PolicyBuilder::retry_budget) | the checkout timeout | a caller that waits so long for a connection also waits so long for a result |
/// | [`slow_checkout_threshold`](PolicyBuilder::slow_checkout_threshold) | 2 s | sqlx's `acquire_slow_threshold` |
/// | [`leak_detection_threshold`](PolicyBuilder::leak_detection_threshold) | 60 s | far beyond a request; a forgotten transaction keeps the compute awake |
/// | [`silence_threshold`](PolicyBuilder::silence_threshold) | off | it ends processes of the server that are idle though a statement waits, which the pool must be alone to use; 1 s suits most |
/// | [`response_timeout`](PolicyBuilder::response_timeout) | off | no limit fits all statements: a running statement sends nothing until it has rows |
/// | [`named_statements`](PolicyBuilder::named_statements) | detected | poolers differ, and a wrong guess runs another client's statement |
/// | [`statement_cache`](PolicyBuilder::statement_cache) | 100 | sqlx's and asyncpg's; the server keeps each of them per connection |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    silence_threshold: Option<Duration>,
    response_timeout: Option<Duration>,
    named_statements: NamedStatements,
    statement_cache: usize,
}

/// Whether a [`Connection`](crate::Connection) may name repeated statements, so that the server parses and
/// plans them once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NamedStatements {
    /// Names statements on Neon's direct endpoints; elsewhere if a probe, once for each pool, finds Postgres
    /// itself or a pooler that tracks prepared statements. The probe is sent with the first statement that could
    /// have a name.
    #[default]
    Detect,
    /// Names statements always. Behind a pooler that does not track prepared statements, one process's statement
    /// runs under another's name, with another's parameters: set this only for a pooler that is known to.
    Always,
    /// Never names statements. Nothing is found out then: but for Neon's direct endpoints, statements that are begun at the
    /// same time on one connection are sent one after another, as behind a pooler that does not track.
    Never,
}

impl Policy {
    /// Returns the quiet time after which Neon suspends the compute; `None` if it never does.
    pub fn suspend_after(&self) -> Option<Duration> {
        self.suspend_after
    }

    /// Returns the age past which a connection is not handed out any more.
    pub fn max_lifetime(&self) -> Duration {
        self.max_lifetime
    }

    /// Returns how long a connection may be idle in the pool.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Returns the largest number of connections.
    pub fn max_size(&self) -> u32 {
        self.max_size
    }

    /// Returns how long a caller waits for a connection at most, connects and validation included.
    pub fn checkout_timeout(&self) -> Duration {
        self.checkout_timeout
    }

    /// Returns the budget for a new connection: name look-up, TCP, TLS, authentication, the compute's cold
    /// start, and the retries of transient failures.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Returns how long the check of a connection may take.
    pub fn validation_timeout(&self) -> Duration {
        self.validation_timeout
    }

    /// Returns the time since its last activity within which a connection is handed out unchecked.
    pub fn validation_bypass(&self) -> Duration {
        self.validation_bypass
    }

    /// Returns how many connects may be under way at the same time.
    pub fn max_connecting(&self) -> u32 {
        self.max_connecting
    }

    /// Returns how many idle connections the pool maintains.
    pub fn min_idle(&self) -> u32 {
        self.min_idle
    }

    /// Returns how often a [`Retry`](crate::Retry) does its work at most.
    pub fn retry_attempts(&self) -> u32 {
        self.retry_attempts
    }

    /// Returns for how long a [`Retry`](crate::Retry) starts further attempts.
    pub fn retry_budget(&self) -> Duration {
        self.retry_budget
    }

    /// Returns the duration from which a checkout is logged as slow; `None` if never.
    pub fn slow_checkout_threshold(&self) -> Option<Duration> {
        self.slow_checkout_threshold
    }

    /// Returns the time from which a held connection is logged as a leak; `None` if never.
    pub fn leak_detection_threshold(&self) -> Option<Duration> {
        self.leak_detection_threshold
    }

    /// Returns the silence after which a statement of a pool is looked after; `None` if never.
    pub fn silence_threshold(&self) -> Option<Duration> {
        self.silence_threshold
    }

    /// Returns how long the server may send nothing while a caller waits for its response; `None` if for ever.
    pub fn response_timeout(&self) -> Option<Duration> {
        self.response_timeout
    }

    /// Returns whether repeated statements get names.
    pub fn named_statements(&self) -> NamedStatements {
        self.named_statements
    }

    /// Returns how many named statements each connection keeps at most.
    pub fn statement_cache(&self) -> usize {
        self.statement_cache
    }
}
