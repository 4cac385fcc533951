//! Runs a statement: with a name, without one, or with a probe; again if the server no longer knows it.

use std::any::TypeId;
use std::sync::Arc;

use diesel::connection::InstrumentationEvent;
use diesel::result::QueryResult;

use super::Connection;
use super::response_head::{ResponseHead, StartError, affected_rows, read_head};
use super::row_stream::RowStream;
use super::statement::Statement;
use super::statement_cache::{Key, Plan, Prepared};
use crate::pooler::Support;
use crate::protocol::{command_tag, tag};
use crate::query::Binds;
use crate::session::Failure;
use crate::url::Endpoint;

impl Connection {
    pub(super) async fn load_statement(&self, statement: Statement) -> QueryResult<RowStream<'_>> {
        let sql = statement.sql?;
        let Statement {
            binds,
            cacheable,
            id,
            ..
        } = statement;
        match self.start(&sql, binds, cacheable, id).await {
            Ok(head) => Ok(RowStream::new(self, sql, head)),
            Err(error) => {
                self.record_finish(&sql, Some(&error));
                Err(error)
            }
        }
    }

    pub(super) async fn execute_statement(&self, statement: Statement) -> QueryResult<usize> {
        let sql = statement.sql?;
        let Statement {
            binds,
            cacheable,
            id,
            ..
        } = statement;
        let executed = async {
            let head = self.start(&sql, binds, cacheable, id).await?;
            Ok(affected_rows(head).await?)
        }
        .await;
        self.record_finish(&sql, executed.as_ref().err());
        executed
    }

    /// Sends a statement and reads the head of its response, with its types looked up.
    async fn start(
        &self,
        sql: &Arc<str>,
        binds: QueryResult<Binds>,
        cacheable: QueryResult<bool>,
        id: Option<TypeId>,
    ) -> QueryResult<ResponseHead<'_>> {
        self.refuse_listen(sql)?;
        let mut binds = binds?;
        let cacheable = cacheable?;
        if binds.named().next().is_none() {
            let oids = binds.oids()?;
            let head = self.start_with(sql, &oids, &binds, cacheable, id).await;
            return Ok(head?);
        }
        let was_cached = Box::pin(self.resolve(&mut binds)).await?;
        let oids = binds.oids()?;
        let mut error = match self.start_with(sql, &oids, &binds, cacheable, id).await {
            Err(error) if was_cached => error,
            head => return Ok(head?),
        };
        if !Box::pin(self.resolve_again(&mut error, &mut binds)).await? {
            return Err(error.into());
        }
        let oids = binds.oids()?;
        Ok(self.start_with(sql, &oids, &binds, cacheable, id).await?)
    }

    /// Sends a statement, whose types are known, and reads the head of its response.
    async fn start_with(
        &self,
        sql: &Arc<str>,
        oids: &[u32],
        binds: &Binds,
        cacheable: bool,
        id: Option<TypeId>,
    ) -> Result<ResponseHead<'_>, StartError> {
        if let Some(probe) = self.probe() {
            return Box::pin(self.start_with_probe(probe, sql, oids, binds)).await;
        }
        if !cacheable && !self.record_repeat(sql, oids) {
            let head = self.start_unnamed(sql, oids, binds).await?;
            if head.next.tag == tag::COMMAND_COMPLETE {
                self.statements.note_command(command_tag(&head.next.body));
            }
            return Ok(head);
        }
        match self.pooler.support() {
            Support::Direct | Support::Tracked => {
                let by_sql = || Key::Sql(Arc::clone(sql), oids.into());
                let key = id.map_or_else(by_sql, Key::Type);
                self.start_named(&key, sql, oids, binds).await
            }
            _ => self.start_unnamed(sql, oids, binds).await,
        }
    }

    /// Records a statement that Diesel does not cache; returns whether it is worth a name. Diesel does not cache inserts
    /// and changesets, whose SQL varies, but most of those in use are repeated.
    fn record_repeat(&self, sql: &str, oids: &[u32]) -> bool {
        self.endpoint() == Endpoint::Direct
            && matches!(self.pooler.support(), Support::Direct | Support::Unknown)
            && (sql.starts_with("INSERT ") || sql.starts_with("UPDATE "))
            && sql.len() <= MAX_NAMED_LEN
            && self.statements.record_repeat(sql, oids)
    }

    /// Starts a statement without a name.
    async fn start_unnamed(
        &self,
        sql: &str,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<ResponseHead<'_>, StartError> {
        let response = self.send(&Plan::Unnamed, sql, oids, binds).await?;
        read_head(response, &mut Plan::Unnamed).await
    }

    /// Starts a statement under a name, which it is given in the same flight if it has none.
    async fn start_named(
        &self,
        key: &Key,
        sql: &Arc<str>,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<ResponseHead<'_>, StartError> {
        let capacity = self.pooler.capacity();
        let name = |number| self.pooler.name(number);
        let mut plan = self.statements.plan(key, sql, capacity, name);
        if let Plan::Prepare(_) = &plan {
            self.record(InstrumentationEvent::cache_query(sql));
        }
        let response = self.send(&plan, sql, oids, binds).await?;
        match read_head(response, &mut plan).await {
            Ok(head) => {
                let is_described = matches!(&plan, Plan::Named(Prepared { columns: Some(known), .. })
                    if Arc::ptr_eq(known, &head.columns));
                if let (false, Some(name)) = (is_described, plan.name()) {
                    self.statements.describe(key, name, &head.columns);
                }
                Ok(head)
            }
            Err(error) if is_stale(&error.failure, &plan) => {
                let StartError { failure, preamble } = error;
                tracing::debug!(reason = ?failure, "named statements are forgotten");
                self.statements.clear();
                match (is_replan(&failure), plan.name()) {
                    (true, Some(name)) => self.pooler.renew(name),
                    _ => self.pooler.downgrade(),
                }
                // The failed statement has changed nothing, but an open transaction has failed with it.
                match self.session.restart_transaction(preamble) {
                    true => Box::pin(self.start_unnamed(sql, oids, binds)).await,
                    false => Err(failure.into()),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// The longest SQL that is named though Diesel does not cache it: a batch of many rows is not worth the memory.
const MAX_NAMED_LEN: usize = 4096;

/// Returns whether the server no longer knows the name of the plan, or its result has other columns.
fn is_stale(failure: &Failure, plan: &Plan<'_>) -> bool {
    let Failure::Server(error) = failure else {
        return false;
    };
    match plan {
        Plan::Unnamed => false,
        // A pooler may have miscounted the statements of a server: if a pipelined request fails, the server skips the
        // Close messages of the pooler behind it.
        Plan::Prepare(_) => error.code == "42P05" || is_replan(failure),
        Plan::Named(_) => matches!(error.code.as_str(), "26000" | "42P05") || is_replan(failure),
    }
}

/// Returns whether the failure is "cached plan must not change result type".
fn is_replan(failure: &Failure) -> bool {
    matches!(failure, Failure::Server(error) if error.code == "0A000"
        && error.routine.as_deref() == Some("RevalidateCachedQuery"))
}
