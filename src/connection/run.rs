//! Runs a statement: with a name, without one, or with a probe; again if the server no longer knows it.

use diesel::connection::InstrumentationEvent;
use diesel::result::QueryResult;

use super::Connection;
use super::names::Candidate;
use super::response_head::{ResponseHead, StartError, affected_rows, read_head};
use super::row_stream::RowStream;
use super::statement::Statement;
use super::statement_cache::Plan;
use crate::pooler::Support;
use crate::session::Failure;

impl Connection {
    pub(super) async fn load_statement(
        &self,
        statement: QueryResult<Statement<'_>>,
    ) -> QueryResult<RowStream<'_>> {
        let mut statement = statement?;
        match self.start(&mut statement).await {
            Ok(head) => Ok(RowStream::new(self, statement.sql.hand_on(), head)),
            Err(error) => {
                statement.sql.finish(Some(&error));
                Err(error)
            }
        }
    }

    pub(super) async fn execute_statement(
        &self,
        statement: QueryResult<Statement<'_>>,
    ) -> QueryResult<usize> {
        let mut statement = statement?;
        let executed = async {
            let head = self.start(&mut statement).await?;
            Ok(affected_rows(head).await?)
        }
        .await;
        statement.sql.finish(executed.as_ref().err());
        executed
    }

    /// Sends a statement and reads the head of its response, with its types looked up.
    async fn start(&self, statement: &mut Statement<'_>) -> QueryResult<ResponseHead<'_>> {
        self.refuse_listen(&statement.sql)?;
        if statement.binds.named().next().is_some() {
            return Box::pin(self.start_with_lookup(statement)).await;
        }
        Ok(self.start_resolved(statement).await?)
    }

    async fn start_with_lookup(
        &self,
        statement: &mut Statement<'_>,
    ) -> QueryResult<ResponseHead<'_>> {
        let bounds = &self.session.status().bounds;
        let mut look_ups = 0;
        let (mut error, begins, ends) = loop {
            look_ups += 1;
            // Beside changes without end it would never be sent. With an outdated type it fails, and is sent again.
            let is_last = look_ups > LOOK_UPS;
            statement.changes = (!is_last).then(|| self.session.status().schema.sent());
            let was_cached = self.resolve(&mut statement.binds).await? || is_last;
            let (begins, ends) = (bounds.begins(), bounds.ends());
            match self.start_resolved(statement).await {
                Err(error) if matches!(error.failure, Failure::Outdated) => {}
                Err(error) if was_cached => break (error, begins, ends),
                head => return Ok(head?),
            }
        };
        statement.changes = None;
        let is_begun_anew = error.has_failed_transaction;
        let is_resolved = self.resolve_again(&mut error, &mut statement.binds);
        // Another statement may have been sent meanwhile: the end of the transaction, or the beginning of one.
        let is_still_there = is_resolved.await?
            && match is_begun_anew {
                true => bounds.ends() == ends,
                false => bounds.begins() == begins,
            };
        if !is_still_there {
            return Err(error.into());
        }
        Ok(self.start_resolved(statement).await?)
    }

    /// Sends a statement, whose types are known, and reads the head of its response.
    async fn start_resolved(
        &self,
        statement: &Statement<'_>,
    ) -> Result<ResponseHead<'_>, StartError> {
        let candidate = statement.candidate();
        if let Some(probe) = self.probe() {
            self.statements.note(&candidate);
            return Box::pin(self.start_with_probe(probe, &candidate)).await;
        }
        let begins = self.begins();
        let mut plan = self.plan(&candidate);
        if let Plan::Prepare(_) = &plan {
            self.record(InstrumentationEvent::cache_query(candidate.sql));
        }
        let error = match self.start_planned(&mut plan, &candidate).await {
            Err(error) if is_unsent(&error.failure, &candidate) => error,
            Err(error) if is_stale(&error.failure, &plan) => error,
            started => return started,
        };
        self.forget(error, &plan, begins)?;
        plan = Plan::Unnamed;
        Box::pin(self.start_planned(&mut plan, &candidate)).await
    }

    /// Forgets what the failure of a statement with a name shows to be stale. Returns the error if the statement may not run
    /// again without one.
    fn forget(&self, error: StartError, plan: &Plan<'_>, begins: u64) -> Result<(), StartError> {
        let StartError {
            failure,
            preamble,
            has_failed_transaction,
        } = error;
        if matches!(failure, Failure::Outdated) {
            return Ok(());
        }
        tracing::debug!(reason = ?failure, "named statements are forgotten");
        self.statements.clear();
        match (is_replan(&failure), plan.name()) {
            (true, Some(name)) => self.pooler.renew_stale(name),
            _ => self.pooler.downgrade(),
        }
        // The failed statement has changed nothing, but an open transaction has failed with it. Where there was none, it must
        // not run in one that has been begun since.
        let may_run_again = match has_failed_transaction {
            true => self.session.restart_transaction(preamble),
            false => self.begins() == begins,
        };
        match may_run_again {
            true => Ok(()),
            false => Err(failure.into()),
        }
    }

    /// Returns how many statements may have begun a transaction.
    fn begins(&self) -> u64 {
        self.session.status().bounds.begins()
    }

    /// Returns how a statement is to run. A statement that Diesel does not cache gets a name when it comes again.
    fn plan(&self, candidate: &Candidate<'_>) -> Plan<'_> {
        match self.pooler.support() {
            Support::Direct | Support::Tracked => {
                // A plan that is made now would fail if an open change were undone.
                let changes = self.session.status().schema.sent();
                let Some(schema) = self.session.status().schema.version() else {
                    return Plan::Unnamed;
                };
                if self.statements.keep_up_with(schema) {
                    self.pooler.renew();
                }
                let oids = candidate.binds.oids();
                let name = |number| self.pooler.name(number, candidate.sql, &oids);
                self.statements
                    .plan(candidate, self.pooler.capacity(), changes, name)
            }
            Support::Unknown | Support::Probing => {
                self.statements.note(candidate);
                Plan::Unnamed
            }
            Support::Unnamed => Plan::Unnamed,
        }
    }

    /// Starts a statement as `plan` says. A name is given in the same flight.
    async fn start_planned(
        &self,
        plan: &mut Plan<'_>,
        candidate: &Candidate<'_>,
    ) -> Result<ResponseHead<'_>, StartError> {
        let response = self.send(plan, candidate).await?;
        let head = read_head(response, plan).await?;
        self.statements.describe(plan, &head.rows);
        Ok(head)
    }
}

/// How often the types of a statement are looked up because the schema may have changed meanwhile.
const LOOK_UPS: u32 = 5;

/// Returns whether a statement was not sent because its name was of before a change, and nothing else of it was.
fn is_unsent(failure: &Failure, candidate: &Candidate<'_>) -> bool {
    matches!(failure, Failure::Outdated) && candidate.changes.is_none()
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
