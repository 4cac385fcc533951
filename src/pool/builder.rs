//! [`PoolBuilder`]: makes a pool from a URL and settings.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Pool;
use super::connections::Connections;
use super::error::BuildError;
use super::state::PoolState;
use crate::connect::Establish;
use crate::connection::Connection;
use crate::env;
use crate::policy::{NamedStatements, Policy, PolicyBuilder};
use crate::url::{DatabaseUrl, UrlError};

impl Pool {
    /// Builds a pool for the URL in the environment ([`env::app_url`]), or in the nearest `.env` file if the
    /// environment has none, with the default [`Policy`].
    ///
    /// The file is read for this URL alone; [`env::load_dotenv`] puts all of it into the environment.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn from_env() -> Result<Self, BuildError> {
        Self::builder(env::app_url_or_dotenv()?.url).build()
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

/// Builds a [`Pool`], inside of a tokio runtime or outside. Each setting is one of [`PolicyBuilder`]'s.
#[derive(Clone, Debug)]
#[must_use]
pub struct PoolBuilder<C = Connection> {
    url: Result<DatabaseUrl, UrlError>,
    policy: PolicyBuilder,
    connection: PhantomData<fn() -> C>,
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
            policy: Policy::builder(),
            connection: PhantomData,
        }
    }

    /// Take all settings from `policy`, in place of those that were set before.
    pub fn policy(mut self, policy: PolicyBuilder) -> Self {
        self.policy = policy;
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
        let state = PoolState::new::<C>(&url, policy)?;
        let connections = Arc::new(Connections::new(state));
        if policy.min_idle() > 0 && Handle::try_current().is_ok() {
            connections.maintain();
            let due = connections.queue().connect();
            connections.make(due);
        }
        Ok(Pool { connections })
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
    /// Set how long the server may send nothing while a response is outstanding.
    response_timeout(silence: impl Into<Option<Duration>>);
    /// Set whether repeated statements get names.
    named_statements(names: NamedStatements);
    /// Set how many named statements each connection keeps.
    statement_cache(statements: usize);
}
