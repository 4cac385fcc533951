//! How a statement runs.

use std::any::TypeId;
use std::sync::Arc;

use diesel::connection::InstrumentationEvent;
use diesel::result::QueryResult;

use super::Connection;
use super::response_head::{Refused, ResponseHead, count, read};
use super::row_stream::RowStream;
use super::statement::Statement;
use super::statement_cache::{Key, Plan, Prepared};
use crate::pooler::Names;
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
        match self.begin(&sql, binds, cacheable, id).await {
            Ok(begun) => Ok(RowStream::new(self, sql, begun)),
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
            let begun = self.begin(&sql, binds, cacheable, id).await?;
            Ok(count(begun).await?)
        }
        .await;
        self.record_finish(&sql, executed.as_ref().err());
        executed
    }

    async fn begin(
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
            let begun = self.begin_with(sql, &oids, &binds, cacheable, id).await;
            return Ok(begun?);
        }
        let remembered = Box::pin(self.resolve(&mut binds)).await?;
        let oids = binds.oids()?;
        let mut refused = match self.begin_with(sql, &oids, &binds, cacheable, id).await {
            Err(refused) if remembered => refused,
            begun => return Ok(begun?),
        };
        if !Box::pin(self.resolve_again(&mut refused, &mut binds)).await? {
            return Err(refused.into());
        }
        let oids = binds.oids()?;
        Ok(self.begin_with(sql, &oids, &binds, cacheable, id).await?)
    }

    async fn begin_with(
        &self,
        sql: &Arc<str>,
        oids: &[u32],
        binds: &Binds,
        cacheable: bool,
        id: Option<TypeId>,
    ) -> Result<ResponseHead<'_>, Refused> {
        if let Some(question) = self.question() {
            return Box::pin(self.begin_asking(question, sql, oids, binds)).await;
        }
        if !cacheable && !self.comes_again(sql, oids) {
            let begun = self.begin_unnamed(sql, oids, binds).await?;
            if begun.next.tag == tag::COMMAND_COMPLETE {
                self.statements.completed(command_tag(&begun.next.body));
            }
            return Ok(begun);
        }
        match self.pooler.names() {
            Names::Direct | Names::Tracked => {
                let by_sql = || Key::Sql(Arc::clone(sql), oids.into());
                let key = id.map_or_else(by_sql, Key::Type);
                self.begin_named(&key, sql, oids, binds).await
            }
            _ => self.begin_unnamed(sql, oids, binds).await,
        }
    }

    /// Diesel does not cache inserts and changesets, whose SQL varies; most that are in use come again all
    /// the same.
    fn comes_again(&self, sql: &str, oids: &[u32]) -> bool {
        self.endpoint() == Endpoint::Direct
            && matches!(self.pooler.names(), Names::Direct | Names::Unknown)
            && (sql.starts_with("INSERT ") || sql.starts_with("UPDATE "))
            && sql.len() <= LONGEST
            && self.statements.comes_again(sql, oids)
    }

    async fn begin_unnamed(
        &self,
        sql: &str,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<ResponseHead<'_>, Refused> {
        let answer = self.send(&Plan::Unnamed, sql, oids, binds).await?;
        read(answer, &mut Plan::Unnamed).await
    }

    /// Under a name: the first time that is given in the same flight.
    async fn begin_named(
        &self,
        key: &Key,
        sql: &Arc<str>,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<ResponseHead<'_>, Refused> {
        let capacity = self.pooler.capacity();
        let name = |number| self.pooler.name(number);
        let mut plan = self.statements.plan(key, sql, capacity, name);
        if let Plan::Prepare(_) = &plan {
            self.record(InstrumentationEvent::cache_query(sql));
        }
        let answer = self.send(&plan, sql, oids, binds).await?;
        match read(answer, &mut plan).await {
            Ok(begun) => {
                let known = matches!(&plan, Plan::Named(Prepared { columns: Some(known), .. })
                    if Arc::ptr_eq(known, &begun.columns));
                if let (false, Some(name)) = (known, plan.name()) {
                    self.statements.describe(key, name, &begun.columns);
                }
                Ok(begun)
            }
            Err(refused) if is_stale(&refused.failure, &plan) => {
                let Refused { failure, commands } = refused;
                tracing::debug!(reason = ?failure, "named statements are forgotten");
                self.statements.clear();
                match (is_replan(&failure), plan.name()) {
                    (true, Some(name)) => self.pooler.renew(name),
                    _ => self.pooler.downgrade(),
                }
                // Nothing has run, unless it was in a transaction before.
                match self.session.restart_transaction(commands) {
                    true => Box::pin(self.begin_unnamed(sql, oids, binds)).await,
                    false => Err(failure.into()),
                }
            }
            Err(refused) => Err(refused),
        }
    }
}

/// A batch of many rows is not worth the memory.
const LONGEST: usize = 4096;

/// Whether the server does not know a name any more, or not what it stood for.
fn is_stale(failure: &Failure, plan: &Plan<'_>) -> bool {
    let Failure::Server(error) = failure else {
        return false;
    };
    match plan {
        Plan::Unnamed => false,
        // Behind a pooler it may be new to this session only, or the pooler may have lost count of what a
        // server knows: one that fails between pipelined requests skips what the pooler wants closed.
        Plan::Prepare(_) => error.code == "42P05" || is_replan(failure),
        Plan::Named(_) => matches!(error.code.as_str(), "26000" | "42P05") || is_replan(failure),
    }
}

/// Whether a statement's rows are not what they were: "cached plan must not change result type".
fn is_replan(failure: &Failure) -> bool {
    matches!(failure, Failure::Server(error) if error.code == "0A000"
        && error.routine.as_deref() == Some("RevalidateCachedQuery"))
}
