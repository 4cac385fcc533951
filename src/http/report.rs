//! [`Reporter`]: tells instrumentation of statements.

use std::fmt;
use std::sync::{Arc, Mutex};

use diesel::connection::{
    DynInstrumentation, Instrumentation, InstrumentationEvent, StrQueryHelper,
};
use diesel::pg::Pg;
use diesel::query_builder::QueryFragment;
use diesel::result::{Error, QueryResult};

use crate::query::{Mark, dropped};
use crate::util::lock;

/// Instrumentation that an [`HttpConnection`](super::HttpConnection) shares with its clones.
#[derive(Clone)]
pub(super) struct Reporter(Arc<Mutex<DynInstrumentation>>);

impl Reporter {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(
            DynInstrumentation::default_instrumentation(),
        )))
    }

    pub(super) fn replace(&self, instrumentation: impl Instrumentation) {
        *lock(&self.0) = instrumentation.into();
    }

    /// Tells that a query starts, whose SQL is given.
    pub(super) fn start(&self, query: &impl QueryFragment<Pg>, sql: String) -> Started {
        let started = self.started(sql);
        let query = diesel::debug_query(query);
        started.record(InstrumentationEvent::start_query(&query));
        started
    }

    pub(super) fn start_sql(&self, sql: String) -> Started {
        let started = self.started(sql);
        let query = StrQueryHelper::new(&started.sql);
        started.record(InstrumentationEvent::start_query(&query));
        started
    }

    fn started(&self, sql: String) -> Started {
        Started {
            reporter: self.clone(),
            mark: Mark::new(),
            sql,
            is_finished: false,
        }
    }

    fn record(&self, event: InstrumentationEvent<'_>) {
        lock(&self.0).on_connection_event(event);
    }
}

impl Instrumentation for Reporter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        self.record(event);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

/// A statement that has started. If this is dropped, so was the statement's future.
#[derive(Debug)]
pub(super) struct Started {
    reporter: Reporter,
    mark: Mark,
    sql: String,
    is_finished: bool,
}

impl Started {
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// Tells of the end of the statement, and returns its result.
    pub(super) fn finish<T>(mut self, done: QueryResult<T>) -> QueryResult<T> {
        self.tell(done.as_ref().err());
        done
    }

    fn tell(&mut self, error: Option<&Error>) {
        self.is_finished = true;
        let query = StrQueryHelper::new(&self.sql);
        self.record(InstrumentationEvent::finish_query(&query, error));
    }

    fn record(&self, event: InstrumentationEvent<'_>) {
        self.mark.during(|| self.reporter.record(event));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.is_finished {
            self.tell(Some(&dropped()));
        }
    }
}
