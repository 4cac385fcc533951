//! [`Policy`]: the numbers, derived from one another and checked together once.

mod builder;
mod error;
mod validate;

use std::time::Duration;

pub use self::builder::PolicyBuilder;
pub use self::error::PolicyError;

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
/// | [`validation_timeout`](PolicyBuilder::validation_timeout) | 2 s | only a silently dead connection takes that long, and one discovery evicts all of its generation |
/// | [`validation_bypass`](PolicyBuilder::validation_bypass) | 500 ms | HikariCP's `aliveBypassWindowMs` |
/// | [`max_connecting`](PolicyBuilder::max_connecting) | 4 | Neon's proxy limits the attempts per endpoint, and a crowd wakes a compute no faster |
/// | [`min_idle`](PolicyBuilder::min_idle) | 0 | connections that are kept up keep the compute awake |
/// | [`retry_attempts`](PolicyBuilder::retry_attempts) | 5 | Neon's guide to resilient applications |
/// | [`retry_budget`](PolicyBuilder::retry_budget) | the checkout timeout | who waits that long for a connection waits as long for an answer |
/// | [`slow_checkout_threshold`](PolicyBuilder::slow_checkout_threshold) | 2 s | sqlx's `acquire_slow_threshold` |
/// | [`leak_detection_threshold`](PolicyBuilder::leak_detection_threshold) | 60 s | far beyond a request; a forgotten transaction keeps the compute awake |
/// | [`response_timeout`](PolicyBuilder::response_timeout) | off | no limit fits all statements: one that runs sends nothing until it has rows |
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
    response_timeout: Option<Duration>,
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

    /// Returns how long the server may send nothing while a caller waits for its response; `None` if for ever.
    pub fn response_timeout(&self) -> Option<Duration> {
        self.response_timeout
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
