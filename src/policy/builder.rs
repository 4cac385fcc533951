//! [`PolicyBuilder`]: the settings, one by one.

use std::time::Duration;

use super::{NamedStatements, Policy};

impl Policy {
    /// Begins with the defaults.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }
}

/// Sets what differs from the defaults; see [`Policy`] for those and their reasons.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyBuilder {
    pub(super) suspend_after: Option<Option<Duration>>,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_size: Option<u32>,
    pub(super) checkout_timeout: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) validation_timeout: Option<Duration>,
    pub(super) validation_bypass: Option<Duration>,
    pub(super) max_connecting: Option<u32>,
    pub(super) min_idle: Option<u32>,
    pub(super) retry_attempts: Option<u32>,
    pub(super) retry_budget: Option<Duration>,
    pub(super) slow_checkout_threshold: Option<Option<Duration>>,
    pub(super) leak_detection_threshold: Option<Option<Duration>>,
    pub(super) response_timeout: Option<Duration>,
    pub(super) named_statements: NamedStatements,
    pub(super) statement_cache: Option<usize>,
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

    /// End a statement if the server sends not one byte for so long while a caller waits for its response, and close
    /// its connection. Default: `None`, for ever.
    ///
    /// For a proxy that hangs: it keeps the socket open and acknowledges what it is sent, so that no keepalive notices.
    /// (A machine that vanishes is noticed within 30 s in any case.) The limit is on silence and not on the whole: rows
    /// that keep arriving take the time they need. But a statement that runs and has nothing to send yet is silent, too:
    /// `pg_sleep`, a long aggregate, an index build, a wait for a lock. Set it above the longest of those. To bound
    /// statements that the server runs, set `statement_timeout` in the database instead.
    ///
    /// The error is one of a lost connection, since the statement may have run;
    /// [`is_response_timeout`](crate::is_response_timeout) tells it from others. The server is asked to cancel the
    /// statement; that of an [`AsyncPgConnection`](diesel_async::AsyncPgConnection) is only cut off.
    #[must_use]
    pub fn response_timeout(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.response_timeout = silence.into();
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

    /// Takes the URL's `connect_timeout` where none was set here, as far as what was set allows.
    pub(crate) fn or_connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        let bound = self.checkout_timeout.unwrap_or(Duration::MAX);
        self.connect_timeout = self
            .connect_timeout
            .or(timeout.map(|timeout| timeout.min(bound)));
        self
    }
}
