//! Sends a statement as one request, with the names to close in front of it.

use std::sync::Arc;

use super::Connection;
use super::names::Candidate;
use super::rows::Rows;
use super::statement_cache::Plan;
use crate::pooler::Support;
use crate::protocol::{Group, Messages, Request, Unsendable};
use crate::session::{Failure, Response};
use crate::util::effects::Effects;

impl Connection {
    /// Sends a statement as `plan` says.
    pub(super) async fn send(
        &self,
        plan: &Plan<'_>,
        candidate: &Candidate<'_>,
    ) -> Result<Response<'_>, Failure> {
        let evicted = self.statements.take_evicted();
        let effects = Effects::of_one(candidate.sql);
        let request = self.encode(plan, candidate, evicted.names(), effects.changes_schema);
        let request = request.map_err(Failure::Unsendable)?;
        self.session.status().bounds.note(candidate.sql, effects);
        let response = self.session.send(&request).await?;
        evicted.set_closed();
        Ok(response)
    }

    /// Encodes a request that closes names, and runs a statement as `plan` says.
    fn encode(
        &self,
        plan: &Plan<'_>,
        candidate: &Candidate<'_>,
        closed: &[Arc<str>],
        may_change_schema: bool,
    ) -> Result<Request, Unsendable> {
        let Candidate {
            sql,
            binds,
            changes,
            ..
        } = *candidate;
        let parse_len = match plan {
            Plan::Named(_) => 0,
            _ => sql.len() + size_of_val(&*binds.oids()),
        };
        let mut closes = Messages::default();
        for name in closed {
            closes.close(name)?;
        }
        let mut messages = Messages::with_capacity(parse_len + binds.size() + HEADERS);
        let name = plan.name().unwrap_or("");
        let describes = match plan {
            // The pooler may have prepared the statement anew, on a server where types have changed. A statement that
            // returns no rows returns none later.
            Plan::Named(_) => match plan.rows() {
                Rows::Unknown => true,
                Rows::None => false,
                Rows::Columns(_) => self.pooler.support() != Support::Direct,
            },
            _ => true,
        };
        let text = match plan {
            Plan::Prepare(_) => self.pooler.text(sql),
            _ => (&**sql).into(),
        };
        if !matches!(plan, Plan::Named(_)) {
            messages.parse(name, &text, &binds.oids())?;
        }
        messages.bind(name, &binds.values)?;
        if describes {
            messages.describe();
        }
        messages.execute();
        messages.sync();
        Ok(Request::Extended(Group {
            closes,
            messages,
            may_change_schema,
            changes: changes.or(plan.changes()),
        }))
    }
}

/// An upper bound for the bytes of a request beside its SQL and its binds.
const HEADERS: usize = 128;
