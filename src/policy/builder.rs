//! [`PolicyBuilder`]: the settings, one by one.

use std::time::Duration;

use super::{NamedStatements, Policy};

impl Policy {
    /// Returns a builder with the defaults.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }
}

/// Builds a [`Policy`], which lists the defaults and their reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a policy is made by build()"]
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
    pub(super) silence_threshold: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
    pub(super) named_statements: NamedStatements,
    pub(super) statement_cache: Option<usize>,
}

impl PolicyBuilder {
    /// Set the *scale to zero* time of your compute. Default: 300 s. Neon's minimum is 60 s; shorter times
    /// are accepted for tests.
    ///
    /// If it is longer than the compute's, connections that a suspension has cut may be handed out (they are
    /// still checked); if it is shorter, the pool only reconnects more often.
    pub fn suspend_after(mut self, window: Duration) -> Self {
        self.suspend_after = Some(Some(window));
        self
    }

    /// Declare that the compute never scales to zero: the defaults become those of an ordinary pool (30 min
    /// of lifetime, 10 min idle).
    pub fn never_suspends(mut self) -> Self {
        self.suspend_after = Some(None);
        self
    }

    /// Set the age past which a connection is not handed out any more. Default: 4/5 of `suspend_after`.
    ///
    /// Each connection's own limit is up to a quarter below this, never above, so that a pool's
    /// connections do not all end at once (HikariCP's variance). A connection in use is never closed for its
    /// age.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }

    /// Set how long a connection may be idle in the pool. Default: half of `suspend_after`.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Set the largest number of connections. Default: 10.
    ///
    /// Connections that are most likely dead do not count until they have answered, so that others can be made in their
    /// place at once: for as long as [`validation_timeout`](Self::validation_timeout), up to twice as many may be open.
    ///
    /// On a direct endpoint, instances × `max_size` must stay below the compute's `max_connections`.
    pub fn max_size(mut self, connections: u32) -> Self {
        self.max_size = Some(connections);
        self
    }

    /// Set how long a caller waits for a connection at most, connects and validation included. Default:
    /// 30 s, or the connect timeout if that is longer.
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.checkout_timeout = Some(timeout);
        self
    }

    /// Set the budget for a new connection, retries and the cold start included. Default: the URL's
    /// `connect_timeout`, else 15 s.
    ///
    /// Below about 5 s a cold start fails like an outage.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Set how long the check of a connection may take. Default: 2 s.
    ///
    /// A slow database should answer within this time; a connection that does not counts as dead.
    pub fn validation_timeout(mut self, timeout: Duration) -> Self {
        self.validation_timeout = Some(timeout);
        self
    }

    /// Set the time since its last activity within which a connection is handed out unchecked. Default:
    /// 500 ms. Zero checks every time.
    pub fn validation_bypass(mut self, window: Duration) -> Self {
        self.validation_bypass = Some(window);
        self
    }

    /// Set how many connects may be under way at the same time. Default: 4.
    ///
    /// After a suspension all callers need connections at once. Neon's proxy limits the attempts per endpoint
    /// and answers the rest with `Too many connections to this endpoint`. With `pipeline_login=true` a connect is under
    /// way until its login is answered.
    pub fn max_connecting(mut self, connections: u32) -> Self {
        self.max_connecting = Some(connections);
        self
    }

    /// Set how many idle connections the pool maintains. Default: none.
    ///
    /// To replace them as they age is activity, so [`build`](Self::build) refuses this unless the compute
    /// [never suspends](Self::never_suspends).
    pub fn min_idle(mut self, connections: u32) -> Self {
        self.min_idle = Some(connections);
        self
    }

    /// Set how often a [`Retry`](crate::Retry) does its work at most. Default: 5. One means no retry.
    pub fn retry_attempts(mut self, attempts: u32) -> Self {
        self.retry_attempts = Some(attempts);
        self
    }

    /// Set for how long a [`Retry`](crate::Retry) starts further attempts. Default: the checkout timeout.
    pub fn retry_budget(mut self, budget: Duration) -> Self {
        self.retry_budget = Some(budget);
        self
    }

    /// Set the duration from which a checkout is logged as slow, as a warning of `tracing`. Default: 2 s.
    /// `None` turns the warning off.
    pub fn slow_checkout_threshold(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.slow_checkout_threshold = Some(limit.into());
        self
    }

    /// Set the time from which a held connection is logged as a leak, once, as a warning of `tracing` with
    /// the place of the checkout. Default: 60 s. `None` turns the warning off.
    pub fn leak_detection_threshold(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.leak_detection_threshold = Some(limit.into());
        self
    }

    /// Set the silence after which a statement of a [`Pool`](crate::Pool) is looked after, such as 1 s. Default: `None`,
    /// never.
    ///
    /// It is off because it ends server processes: set it if the pool alone uses its direct endpoint's processes, which holds
    /// for Neon's hosts and for Postgres itself, but not for a name that leads to a pooler as well.
    ///
    /// A connection that dies silently a moment after its last answer is handed out unasked, and its statement would
    /// wait for TCP's keepalive, or for ever. So when the server has sent no byte for this long while it owes a
    /// response, an idle connection of the pool is asked whether it works, and on a direct endpoint what the silent one's
    /// server process does. If none is idle, or its answer is late, another is made, which then serves who waits; the rest
    /// of the idle ones are asked too if it is late or a statement is found lost.
    ///
    /// - The process runs a statement, or waits for a lock: the statement waits on, and is looked after again when its
    ///   silence is twice as long, at the latest in 30 s.
    /// - It is gone: the statement fails as on a lost connection.
    /// - It is idle, since before the statement was sent: the statement never arrived. The process is ended, so that it
    ///   runs nothing later and holds no lock, and the error says that it is safe to do the statement again
    ///   ([`is_undelivered`](crate::DatabaseErrorExt::is_undelivered)); a [`Retry`](crate::Retry) does so even if the
    ///   work is not idempotent.
    /// - It is idle, and has run something since, or nobody can tell: its answer is lost. The process is ended, and the
    ///   statement fails as on a lost connection.
    ///
    /// Behind a pooler the server process is not known, nor is that of an
    /// [`AsyncPgConnection`](diesel_async::AsyncPgConnection). There the siblings' silence counts: the statement fails as on a lost
    /// connection if one that was in use in the last half minute does not answer within
    /// [`validation_timeout`](Self::validation_timeout), none that was open with it does, and a new connection works: what has
    /// died is then the way that the old ones share. A statement whose siblings are all in use may just be long, and so
    /// may theirs: set [`response_timeout`](Self::response_timeout) to bound it.
    ///
    /// Nothing of this is sent while answers come, but for one small question: on a direct endpoint, each connection
    /// asks its process for its number in front of its first statement, in the same flight. Nor is anything sent while no
    /// answer is owed: an idle pool stays silent, and no compute is kept awake. What cannot be learnt, since no connection can
    /// be made, is left to `response_timeout` and TCP.
    pub fn silence_threshold(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.silence_threshold = silence.into();
        self
    }

    /// Set how long the server may send no byte while a caller waits for a response. Then the statement fails, and
    /// its connection is closed. Default: `None`, for ever.
    ///
    /// A proxy that hangs keeps the socket open and acknowledges all data, so that no keepalive notices. (A machine
    /// that vanishes is noticed within 30 s in any case.) The limit is on silence and not on the whole: rows that keep
    /// arriving, and a request that is still on its way out, take the time they need. But a statement that runs and has
    /// nothing to send yet is silent, too: `pg_sleep`, a long aggregate, an index build, a wait for a lock. So is a line
    /// so slow that the kernel's send buffer takes longer than the limit to drain. Set the limit above the longest of
    /// those, and above a few round trips: the check of a connection waits within it. To bound the run time of
    /// statements, set `statement_timeout` in the database instead.
    ///
    /// The error is that of a lost connection, since the statement may have run;
    /// [`is_response_timeout`](crate::DatabaseErrorExt::is_response_timeout) tells it from others. The server is asked to cancel the
    /// statement; a statement of an [`AsyncPgConnection`](diesel_async::AsyncPgConnection) is only cut off.
    ///
    /// Like `lock_timeout`, the limit is the caller's own: after it, a [`Retry`](crate::Retry) does its work again
    /// only if that is declared [`idempotent`](crate::Retry::idempotent), since the statement may only be long, and may
    /// still run until the server has cancelled it.
    pub fn response_timeout(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.response_timeout = silence.into();
        self
    }

    /// Set whether repeated statements get names. Default: [`NamedStatements::Detect`].
    pub fn named_statements(mut self, names: NamedStatements) -> Self {
        self.named_statements = names;
        self
    }

    /// Set how many named statements each connection keeps at most; the least recently used one goes first. A statement
    /// that Diesel does not cache, such as `sql_query`, gets a name when its text comes again.
    /// Default: 100. Zero names none, as [`NamedStatements::Never`](super::NamedStatements::Never).
    ///
    /// Each statement takes a few kilobytes on the server, for as long as the connection lives.
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = Some(statements);
        self
    }

    /// Take the URL's `connect_timeout` if none was set here, but not more than the checkout timeout.
    pub(crate) fn or_connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        let bound = self.checkout_timeout.unwrap_or(Duration::MAX);
        self.connect_timeout = self
            .connect_timeout
            .or(timeout.map(|timeout| timeout.min(bound)));
        self
    }
}
