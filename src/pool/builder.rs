//! [`PoolBuilder`]: makes a pool from a URL and settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::Instrumentation;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::Pool;
use super::connections::Connections;
use super::error::BuildError;
use super::hooks::{ConnectionMetadata, Hooks};
use super::setup::Setup;
use super::state::PoolState;
use crate::connect::Establish;
use crate::connection::Connection;
use crate::env;
use crate::policy::{NamedStatements, Policy, PolicyBuilder};
use crate::url::{DatabaseUrl, Endpoint, UrlError};

impl Pool {
    /// Builds a pool for the URL in the environment ([`env::app_url`]), or in the nearest `.env` file if the
    /// environment has none, with the default [`Policy`].
    ///
    /// [`dedicated`](Self::dedicated) connections go to [`env::direct_url`].
    ///
    /// The file is read for these URLs alone; [`env::load_dotenv`] puts all of it into the environment.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn from_env() -> Result<Self, BuildError> {
        let mut builder = Self::builder(env::app_url_or_dotenv()?.url);
        match env::direct_url_or_dotenv() {
            Ok(direct) => builder = builder.direct_url(direct.url),
            Err(error) => {
                tracing::warn!(error = ?error, "a direct URL is derived from the app's instead");
            }
        }
        builder.build()
    }

    /// Begins a pool for `url`, a [`DatabaseUrl`] or its text. [`PoolBuilder::new`] begins one for another type of
    /// connection.
    pub fn builder<U>(url: U) -> PoolBuilder
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        PoolBuilder::new(url)
    }
}

/// Builds a [`Pool`], inside of a tokio runtime or outside. Its settings are [`PolicyBuilder`]'s, instrumentation, and hooks.
///
/// # Hooks
///
/// A hook is a closure that takes a connection and its [`ConnectionMetadata`], and returns a boxed future:
///
/// ```no_run
/// # use std::time::Duration;
/// # use diesel_async::SimpleAsyncConnection;
/// # use diesel_neon::{BuildError, Pool};
/// # fn example(url: &str, tenant: String) -> Result<Pool, BuildError> {
/// let pool = Pool::builder(url)
///     .after_connect(move |connection, _| {
///         // Each call needs its own.
///         let tenant = tenant.clone();
///         Box::pin(async move {
///             connection
///                 .batch_execute(&format!("SET app.tenant = '{}'", tenant.replace('\'', "''")))
///                 .await
///         })
///     })
///     .before_acquire(|connection, metadata| {
///         Box::pin(async move {
///             if metadata.idle_for > Duration::from_secs(60) {
///                 connection.batch_execute("DISCARD TEMP").await?;
///             }
///             Ok(true)
///         })
///     })
///     .after_release(|_, metadata| Box::pin(async move { Ok(metadata.uses < 10_000) }))
///     .build()?;
/// # Ok(pool)
/// # }
/// ```
///
/// | hook | runs | has | if it fails, panics or takes longer |
/// |---|---|---|---|
/// | [`after_connect`](Self::after_connect) | once, on a new connection | what is left of `connect_timeout` | the connection is closed, the connect has failed |
/// | [`before_acquire`](Self::before_acquire) | before each later checkout, behind the pool's own validation | what is left of the caller's time | the connection is closed, the caller gets another |
/// | [`after_release`](Self::after_release) | after each checkout, before the next | `validation_timeout` | the connection is closed |
///
/// What a hook leaves behind is treated as what a caller leaves: a connection with an open transaction is closed (but
/// not with one of `begin_test_transaction`), and a statement that was given up is settled. If the caller goes away while
/// `before_acquire` runs, or has no time left, the connection goes back to the pool. A panic of `before_acquire` is the
/// caller's. Without hooks, a checkout costs what it did before.
#[must_use]
pub struct PoolBuilder<C = Connection> {
    url: Result<DatabaseUrl, UrlError>,
    direct_url: Option<Result<DatabaseUrl, UrlError>>,
    policy: PolicyBuilder,
    setup: Setup<C>,
    hooks: Hooks<C>,
}

impl<C: Establish> PoolBuilder<C> {
    /// Begins a pool for `url`, a [`DatabaseUrl`] or its text.
    ///
    /// ```
    /// # use diesel_neon::{BuildError, PoolBuilder};
    /// use diesel_async::AsyncPgConnection;
    ///
    /// let pool = PoolBuilder::<AsyncPgConnection>::new("postgresql://user@localhost/db").build()?;
    /// # Ok::<_, BuildError>(())
    /// ```
    pub fn new<U>(url: U) -> Self
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        Self {
            url: url.try_into().map_err(Into::into),
            direct_url: None,
            policy: Policy::builder(),
            setup: Setup::default(),
            hooks: Hooks::default(),
        }
    }

    /// Take all settings from `policy`, in place of those that were set before.
    pub fn policy(mut self, policy: PolicyBuilder) -> Self {
        self.policy = policy;
        self
    }

    /// Set where [`Pool::dedicated`] connections lead to. Default: the pool's URL without its `-pooler`.
    ///
    /// A pooled URL leads there without its `-pooler` too.
    pub fn direct_url<U>(mut self, url: U) -> Self
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        self.direct_url = Some(url.try_into().map_err(Into::into));
        self
    }

    /// Set a function that makes the instrumentation of each new connection. Default: Diesel's own
    /// ([`set_default_instrumentation`](diesel::connection::set_default_instrumentation)).
    ///
    /// The instrumentation is told of the connect as a whole, however many attempts it takes, with the URL without its
    /// password; of what `after_connect` does; and of every statement from then on. [`QueryTelemetry`] for all of a
    /// pool:
    ///
    /// ```no_run
    /// # use diesel_neon::{DatabaseUrl, Pool, QueryTelemetry};
    /// # fn example(url: &str) -> Result<Pool, Box<dyn std::error::Error>> {
    /// let url = DatabaseUrl::parse(url)?;
    /// let telemetry = QueryTelemetry::new(&url);
    /// let pool = Pool::builder(url)
    ///     .instrumentation(move || telemetry.instrumentation())
    ///     .build()?;
    /// # Ok(pool)
    /// # }
    /// ```
    ///
    /// [`QueryTelemetry`]: crate::QueryTelemetry
    pub fn instrumentation<I: Instrumentation>(
        mut self,
        make: impl Fn() -> I + Send + Sync + 'static,
    ) -> Self {
        self.setup.instrumentation = Some(Arc::new(move || Box::new(make())));
        self
    }

    /// Set a hook that runs once on each new connection, before anybody gets it.
    ///
    /// It is part of the connect: it runs within `connect_timeout`, and if it fails, the connection is closed, and the
    /// connect is tried again for a second before callers are told [`PoolError::Connect`](crate::PoolError::Connect)
    /// with its error. [`dedicated`](Pool::dedicated) connections do not run it.
    ///
    /// What it sets is the session's (`SET`, temporary tables), which lasts on the direct endpoint alone. Behind a
    /// pooler, each transaction has another session: there, [`build`](Self::build) refuses the hook
    /// ([`BuildError::AfterConnectBehindPooler`]). If the host's name does not tell a pooler, the first connect does,
    /// which takes one round trip more, and fails. Settings that last behind a pooler too: `ALTER ROLE … SET`, or `SET
    /// LOCAL` in each transaction.
    ///
    /// A pool of one connection whose tests all run in one transaction, which is never committed:
    ///
    /// ```no_run
    /// # use diesel_async::AsyncConnection;
    /// # use diesel_neon::{BuildError, Pool};
    /// # fn example(url: &str) -> Result<Pool, BuildError> {
    /// Pool::builder(url)
    ///     .max_size(1)
    ///     .after_connect(|connection, _| Box::pin(connection.begin_test_transaction()))
    ///     .build()
    /// # }
    /// ```
    pub fn after_connect<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut C, ConnectionMetadata) -> BoxFuture<'c, QueryResult<()>>
            + Send
            + Sync
            + 'static,
    {
        self.setup.after_connect = Some(Arc::new(hook));
        self
    }

    /// Set a hook that runs on a connection before it is handed out again, behind the pool's own validation. `Ok(true)`
    /// hands it out; if the hook returns `Ok(false)` or an error, the connection is closed, and the caller gets another.
    ///
    /// A connection that nobody has held yet is handed out without it: `after_connect` has seen that one. With this hook,
    /// each checkout costs its caller what the hook does: one round trip for each statement.
    pub fn before_acquire<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut C, ConnectionMetadata) -> BoxFuture<'c, QueryResult<bool>>
            + Send
            + Sync
            + 'static,
    {
        self.hooks.before_acquire = Some(Arc::new(hook));
        self
    }

    /// Set a hook that runs on a connection that was given back, in a task of the pool's, before anybody else gets it.
    /// `Ok(true)` keeps it; if the hook returns `Ok(false)` or an error, or takes longer than `validation_timeout`, the
    /// connection is closed.
    ///
    /// It sees what the pool would keep: no connection that has ended or was left in a transaction.
    pub fn after_release<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut C, ConnectionMetadata) -> BoxFuture<'c, QueryResult<bool>>
            + Send
            + Sync
            + 'static,
    {
        self.hooks.after_release = Some(Arc::new(hook));
        self
    }

    /// Builds the pool. No connection is made yet, unless the policy asks for idle ones.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build(self) -> Result<Pool<C>, BuildError> {
        let url = self.url?;
        let policy = self.policy.or_connect_timeout(url.connect_timeout());
        let policy = policy.build()?;
        let direct_url = match self.direct_url {
            Some(direct) => direct?.direct(),
            None => url.direct(),
        };
        if url.endpoint() == Endpoint::Pooled && self.setup.after_connect.is_some() {
            return Err(BuildError::AfterConnectBehindPooler);
        }
        let state = PoolState::new::<C>(&url, policy)?;
        let connections = Connections::new(state, self.setup, self.hooks, direct_url);
        let connections = Arc::new(connections);
        if policy.min_idle() > 0 && Handle::try_current().is_ok() {
            connections.maintain();
            let due = connections.queue().connect();
            connections.make(due);
        }
        Ok(Pool { connections })
    }
}

impl<C> Clone for PoolBuilder<C> {
    fn clone(&self) -> Self {
        Self {
            url: self.url.clone(),
            direct_url: self.direct_url.clone(),
            policy: self.policy,
            setup: self.setup.clone(),
            hooks: self.hooks.clone(),
        }
    }
}

impl<C> fmt::Debug for PoolBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("url", &self.url)
            .field("direct_url", &self.direct_url)
            .field("policy", &self.policy)
            .field("setup", &self.setup)
            .field("hooks", &self.hooks)
            .finish()
    }
}

/// Forwards settings to [`PolicyBuilder`].
macro_rules! settings {
    ($($(#[$doc:meta])* $setting:ident($($value:ident: $type:ty)?);)*) => {
        impl<C: Establish> PoolBuilder<C> {
            $(
                $(#[$doc])*
                #[doc = concat!(" See [`PolicyBuilder::", stringify!($setting), "`].")]
                pub fn $setting(mut self $(, $value: $type)?) -> Self {
                    self.policy = self.policy.$setting($($value)?);
                    self
                }
            )*
        }
    };
}

settings! {
    /// Set the compute's *scale to zero*.
    suspend_after(window: Duration);
    /// Declare that the compute never scales to zero.
    never_suspends();
    /// Set the age past which a connection is not handed out any more.
    max_lifetime(lifetime: Duration);
    /// Set how long a connection may be idle.
    idle_timeout(timeout: Duration);
    /// Set the maximum number of connections.
    max_size(connections: u32);
    /// Set how long a caller waits for a connection.
    checkout_timeout(timeout: Duration);
    /// Set the budget for a new connection.
    connect_timeout(timeout: Duration);
    /// Set how long the check of a connection may take.
    validation_timeout(timeout: Duration);
    /// Set for how long after its last activity a connection is handed out unchecked.
    validation_bypass(window: Duration);
    /// Set how many connects may be under way at the same time.
    max_connecting(connections: u32);
    /// Set how many idle connections the pool maintains.
    min_idle(connections: u32);
    /// Set how often work is done at most.
    retry_attempts(attempts: u32);
    /// Set for how long further attempts at work begin.
    retry_budget(budget: Duration);
    /// Set from when on a checkout is logged as slow.
    slow_checkout_threshold(limit: impl Into<Option<Duration>>);
    /// Set from when on a held connection is logged as a leak.
    leak_detection_threshold(limit: impl Into<Option<Duration>>);
    /// Set the silence after which a statement is looked after.
    silence_threshold(silence: impl Into<Option<Duration>>);
    /// Set how long the server may send nothing while a response is outstanding.
    response_timeout(silence: impl Into<Option<Duration>>);
    /// Set whether repeated statements get names.
    named_statements(names: NamedStatements);
    /// Set how many named statements each connection keeps.
    statement_cache(statements: usize);
}
