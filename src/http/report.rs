//! [`Reporter`]: tells instrumentation of statements.

use std::fmt;
use std::sync::{Arc, Mutex};

use diesel::connection::{
    DynInstrumentation, Instrumentation, InstrumentationEvent, StrQueryHelper,
};
use diesel::pg::Pg;
use diesel::query_builder::QueryFragment;
use diesel::result::{Error, QueryResult};

use crate::query::dropped;
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

    pub(super) fn start(&self, query: &impl QueryFragment<Pg>) {
        let query = diesel::debug_query(query);
        self.record(InstrumentationEvent::start_query(&query));
    }

    pub(super) fn start_sql(&self, sql: &str) {
        let query = StrQueryHelper::new(sql);
        self.record(InstrumentationEvent::start_query(&query));
    }

    pub(super) fn finish(&self, sql: &str, error: Option<&Error>) {
        let query = StrQueryHelper::new(sql);
        self.record(InstrumentationEvent::finish_query(&query, error));
    }

    /// Tells of the end of a statement that has started, also if its future is dropped.
    pub(super) async fn report<T>(
        &self,
        sql: &str,
        work: impl Future<Output = QueryResult<T>>,
    ) -> QueryResult<T> {
        let unfinished = Unfinished {
            reporter: Some(self),
            sql,
        };
        let done = work.await;
        unfinished.finish(done.as_ref().err());
        done
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

/// A statement that has started. If it is dropped, so was its future.
struct Unfinished<'a> {
    reporter: Option<&'a Reporter>,
    sql: &'a str,
}

impl Unfinished<'_> {
    fn finish(mut self, error: Option<&Error>) {
        if let Some(reporter) = self.reporter.take() {
            reporter.finish(self.sql, error);
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(reporter) = self.reporter.take() {
            reporter.finish(self.sql, Some(&dropped()));
        }
    }
}
