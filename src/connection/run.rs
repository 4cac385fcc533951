//! Runs a statement: with a name, without one, or with a probe; again if the server no longer knows it.

use std::any::TypeId;
use std::sync::Arc;

use diesel::connection::InstrumentationEvent;
use diesel::result::QueryResult;

use super::Connection;
use super::names::Candidate;
use super::response_head::{ResponseHead, StartError, affected_rows, read_head};
use super::row_stream::RowStream;
use super::statement::Statement;
use super::statement_cache::Plan;
use crate::pooler::Support;
use crate::protocol::{command_tag, tag};
use crate::query::Binds;
use crate::session::Failure;

impl Connection {
    pub(super) async fn load_statement(
        &self,
        statement: Statement<'_>,
    ) -> QueryResult<RowStream<'_>> {
        let sql = statement.sql?;
        let Statement {
            binds,
            cacheable,
            id,
            ..
        } = statement;
        match self.start(&sql, binds, cacheable, id).await {
            Ok(head) => Ok(RowStream::new(self, sql.hand_on(), head)),
            Err(error) => {
                sql.finish(Some(&error));
                Err(error)
            }
        }
    }

    pub(super) async fn execute_statement(&self, statement: Statement<'_>) -> QueryResult<usize> {
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
        sql.finish(executed.as_ref().err());
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
        let candidate = Candidate {
            id,
            sql,
            oids,
            cacheable,
        };
        if let Some(probe) = self.probe() {
            self.statements.note(&candidate);
            return Box::pin(self.start_with_probe(probe, sql, oids, binds)).await;
        }
        let plan = self.plan(&candidate);
        if let Plan::Prepare(_) = &plan {
            self.record(InstrumentationEvent::cache_query(sql));
        }
        self.start_with_plan(plan, sql, oids, binds).await
    }

    /// Returns how a statement is to run. A statement that Diesel does not cache gets a name when it comes again.
    fn plan(&self, candidate: &Candidate<'_>) -> Plan<'_> {
        match self.pooler.support() {
            // A pooler that tracks names keeps what it has prepared for a text, whatever becomes of the name.
            Support::Tracked if self.may_have_changed_tables() => Plan::Unnamed,
            Support::Direct | Support::Tracked => {
                let name = |number| self.pooler.name(number);
                self.statements
                    .plan(candidate, self.pooler.capacity(), name)
            }
            Support::Unknown | Support::Probing => {
                self.statements.note(candidate);
                Plan::Unnamed
            }
            Support::Unnamed => Plan::Unnamed,
        }
    }

    /// Returns whether the open transaction may have changed the columns of a table or a view: a stale plan would fail,
    /// and the transaction with it.
    fn may_have_changed_tables(&self) -> bool {
        let status = self.session.status();
        status.in_transaction()
            && self
                .statements
                .has_changed_tables_behind(status.transaction_ends())
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

    /// Starts a statement as `plan` says. A name is given in the same flight.
    async fn start_with_plan(
        &self,
        mut plan: Plan<'_>,
        sql: &str,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<ResponseHead<'_>, StartError> {
        let response = self.send(&plan, sql, oids, binds).await?;
        match read_head(response, &mut plan).await {
            Ok(head) => {
                if let (Plan::Unnamed, tag::COMMAND_COMPLETE) = (&plan, head.next.tag) {
                    let ends = self.session.status().transaction_ends();
                    self.statements
                        .note_command(command_tag(&head.next.body), ends);
                }
                self.statements.describe(&plan, &head.rows);
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
