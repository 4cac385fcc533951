//! Sends a statement as one request.

use super::Connection;
use super::statement_cache::Plan;
use crate::pooler::Names;
use crate::protocol::{Messages, Request};
use crate::query::Binds;
use crate::session::{Failure, Response};

impl Connection {
    pub(super) async fn send(
        &self,
        plan: &Plan<'_>,
        sql: &str,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<Response<'_>, Failure> {
        let retired = self.statements.retired();
        let parsed = match plan {
            Plan::Named(_) => 0,
            _ => sql.len() + size_of_val(oids),
        };
        let mut messages = Messages::with_capacity(parsed + binds.size() + HEADERS);
        let encode = || {
            for name in retired.names() {
                messages.close(name)?;
            }
            let name = plan.name().unwrap_or("");
            let describes = match plan {
                // The pooler may have prepared it anew, on a server where types have changed.
                Plan::Named(prepared) => {
                    prepared.columns.is_none() || self.pooler.names() != Names::Direct
                }
                _ => true,
            };
            let text = match plan {
                Plan::Prepare(_) => self.pooler.text(sql),
                _ => sql.into(),
            };
            if !matches!(plan, Plan::Named(_)) {
                messages.parse(name, &text, oids)?;
            }
            messages.bind(name, &binds.values)?;
            if describes {
                messages.describe();
            }
            messages.execute();
            messages.sync();
            Ok(Request::Extended(messages))
        };
        let request = encode().map_err(Failure::Unsendable)?;
        self.session.status().sends(sql, false);
        let answer = self.session.send(request).await?;
        retired.closed();
        Ok(answer)
    }
}

/// More than what is around a statement and its binds in a request.
const HEADERS: usize = 128;
