//! [`Setup`]: what an application has done with each new connection: it gets instrumentation, and `after_connect` runs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::dsl::sql;
use diesel::result::Error;
use diesel::sql_types::Integer;
use diesel::{ConnectionError, QueryResult};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;

use super::hooks::{ConnectionMetadata, Hook};
use crate::connect::{
    ConnectError, Establish, EstablishedSession, SetupError, is_in_test_transaction,
};
use crate::url::DatabaseUrl;
use crate::util::lock;

/// Makes the instrumentation of one connection.
pub(crate) type MakeInstrumentation = Arc<dyn Fn() -> Box<dyn Instrumentation> + Send + Sync>;

/// What is done with each new connection.
pub(crate) struct Setup<C> {
    pub(super) instrumentation: Option<MakeInstrumentation>,
    pub(super) after_connect: Option<Hook<C, ()>>,
}

impl<C: Establish> Setup<C> {
    /// Begins to make a connection to `target`.
    pub(super) fn begin<'a>(&'a self, target: &'a Target) -> Making<'a, C> {
        // One that panics does so again when the connection gets it, which is then told.
        let begin = || Some(target.begin(self.instrumentation.as_ref()?));
        let begun = catch_unwind(AssertUnwindSafe(begin));
        Making {
            setup: self,
            target,
            instrumentation: Mutex::new(begun.unwrap_or_default()),
        }
    }
}

/// Where connections lead to.
#[derive(Debug)]
pub(crate) struct Target {
    /// The URL without its password.
    url: String,
    /// Whether it is known that no pooler is in front of the server, whatever number a proxy invents for its process.
    is_direct_by_name: bool,
}

impl Target {
    pub(super) fn new(url: &DatabaseUrl) -> Self {
        Self {
            url: url.to_string(),
            is_direct_by_name: url.is_direct_by_name(),
        }
    }

    fn begin(&self, make: &MakeInstrumentation) -> Box<dyn Instrumentation> {
        let mut instrumentation = make();
        let event = InstrumentationEvent::start_establish_connection(&self.url);
        instrumentation.on_connection_event(event);
        instrumentation
    }

    /// Returns whether a session that was told this process ID at its login has a server of its own: a pooler tells one
    /// that is no server's.
    pub(super) async fn is_direct<C: Establish>(
        &self,
        connection: &mut C,
        told: i32,
    ) -> QueryResult<bool> {
        if self.is_direct_by_name {
            return Ok(true);
        }
        let pid = diesel::select(sql::<Integer>("pg_backend_pid()"));
        let pid: i32 = RunQueryDsl::get_result(pid, connection).await?;
        Ok(pid == told)
    }
}

/// A connection that is being made, in one attempt or several.
pub(super) struct Making<'a, C> {
    setup: &'a Setup<C>,
    target: &'a Target,
    /// `None` if a connection has it.
    instrumentation: Mutex<Option<Box<dyn Instrumentation>>>,
}

impl<C: Establish> Making<'_, C> {
    /// Makes a connection of a session, and sets it up.
    pub(super) async fn set_up(&self, session: EstablishedSession) -> Result<C, SetupError> {
        let status = Arc::clone(&session.session().status);
        let mut connection = self.instrumented(C::establish_with(session).await?)?;
        let Some(hook) = &self.setup.after_connect else {
            return Ok(connection);
        };
        let ran = async {
            if !self
                .target
                .is_direct(&mut connection, status.backend_pid())
                .await?
            {
                return Ok(false);
            }
            hook(&mut connection, ConnectionMetadata::default()).await?;
            Ok::<_, Error>(true)
        };
        match AssertUnwindSafe(ran).catch_unwind().await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err(SetupError::Final(BEHIND_POOLER)),
            Ok(Err(error)) => return Err(SetupError::Hook(error)),
            Err(_) => return Err(SetupError::Final("after_connect panicked")),
        }
        if status.in_transaction() && !is_in_test_transaction(&mut connection) {
            return Err(SetupError::Final("after_connect left a transaction open"));
        }
        Ok(connection)
    }

    /// Tells instrumentation that there is no connection.
    pub(super) fn fail(&self, error: &ConnectError) {
        if let Some(mut instrumentation) = lock(&self.instrumentation).take() {
            let error = ConnectionError::BadConnection(error.reason());
            let finish = || self.finish(&mut *instrumentation, Some(&error));
            if catch_unwind(AssertUnwindSafe(finish)).is_err() {
                tracing::warn!("the instrumentation panicked");
            }
        }
    }

    /// Gives a new connection its instrumentation.
    pub(super) fn instrumented(&self, mut connection: C) -> Result<C, SetupError> {
        let instrument = AssertUnwindSafe(|| self.instrument(&mut connection));
        match catch_unwind(instrument) {
            Ok(()) => Ok(connection),
            Err(_) => Err(SetupError::Final("the instrumentation panicked")),
        }
    }

    fn instrument(&self, connection: &mut C) {
        let Some(make) = &self.setup.instrumentation else {
            return;
        };
        let waiting = lock(&self.instrumentation).take();
        // An earlier attempt may have had it.
        connection.set_instrumentation(waiting.unwrap_or_else(|| self.target.begin(make)));
        self.finish(connection.instrumentation(), None);
    }

    fn finish(&self, instrumentation: &mut dyn Instrumentation, error: Option<&ConnectionError>) {
        let event = InstrumentationEvent::finish_establish_connection(&self.target.url, error);
        instrumentation.on_connection_event(event);
    }
}

impl<C> Default for Setup<C> {
    fn default() -> Self {
        Self {
            instrumentation: None,
            after_connect: None,
        }
    }
}

impl<C> Clone for Setup<C> {
    fn clone(&self) -> Self {
        Self {
            instrumentation: self.instrumentation.clone(),
            after_connect: self.after_connect.clone(),
        }
    }
}

impl<C> fmt::Debug for Setup<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("instrumentation", &self.instrumentation.is_some())
            .field("after_connect", &self.after_connect.is_some())
            .finish()
    }
}

const BEHIND_POOLER: &str = "after_connect would set up one session, and the pooler in front of the server gives each \
                             transaction another: use ALTER ROLE … SET, SET LOCAL in each transaction, or a URL that \
                             leads to the server itself";
