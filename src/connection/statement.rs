//! [`Statement`]: a query of Diesel's, rendered.

use std::any::TypeId;
use std::sync::Arc;

use diesel::connection::InstrumentationEvent;
use diesel::pg::Pg;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;

use super::Connection;
use super::names::Candidate;
use super::report::Report;
use crate::query::{Binds, render};

/// A query as SQL and binds, which borrows nothing of Diesel's types.
pub(super) struct Statement<'a> {
    pub(super) sql: Report<'a, Arc<str>>,
    pub(super) binds: Binds,
    pub(super) cacheable: bool,
    /// The query's type, if that determines the SQL.
    pub(super) id: Option<TypeId>,
    /// How many changes of the schema were sent before the types of the binds were looked up, if they were.
    pub(super) changes: Option<u64>,
}

impl<'a> Statement<'a> {
    pub(super) fn new<Q>(connection: &'a Connection, query: &Q) -> QueryResult<Self>
    where
        Q: QueryFragment<Pg> + QueryId,
    {
        connection.record(InstrumentationEvent::start_query(&diesel::debug_query(
            query,
        )));
        let cacheable = query.is_safe_to_cache_prepared(&Pg);
        let id = Q::query_id().filter(|_| matches!(cacheable, Ok(true)));
        let known = id.and_then(|id| connection.statements.sql(id));
        let sql = known.map_or_else(|| render(query).map(Arc::from), Ok);
        let sql = sql.inspect_err(|error| connection.record_finish("", Some(error)))?;
        let sql = Report::of_started(connection, sql);
        match (Binds::collect(query), cacheable) {
            (Ok(binds), Ok(cacheable)) => Ok(Self {
                sql,
                binds,
                cacheable,
                id,
                changes: None,
            }),
            (Err(error), _) | (_, Err(error)) => {
                sql.finish(Some(&error));
                Err(error)
            }
        }
    }

    /// Returns what the statement is known by.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        Candidate {
            id: self.id,
            sql: &self.sql,
            binds: &self.binds,
            cacheable: self.cacheable,
            changes: self.changes,
        }
    }
}
