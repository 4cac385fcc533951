//! Probes whether statements may have names behind this server or pooler.

use super::Connection;
use super::names::Candidate;
use super::response_head::{ResponseHead, StartError, only_row, read_head};
use super::statement_cache::Plan;
use super::types::TEXT;
use crate::pooler::{Probe, Support};
use crate::protocol::{Messages, QUERY_CANCELED, Request};
use crate::query::Row;
use crate::session::{Failure, Response};

/// A probe that was sent.
pub(super) struct SentProbe<'a> {
    probe: Probe<'a>,
    name: String,
    response: Response<'a>,
}

impl Connection {
    /// Begins a probe if the support is unknown. In a transaction, a probe that fails would end the transaction.
    pub(super) fn probe(&self) -> Option<Probe<'_>> {
        match self.pooler.support() {
            Support::Unknown if !self.session.status().in_transaction() => self.pooler.probe(),
            _ => None,
        }
    }

    /// Starts a statement without a name, with the probe in the same flight.
    pub(super) async fn start_with_probe(
        &self,
        probe: Probe<'_>,
        candidate: &Candidate<'_>,
    ) -> Result<ResponseHead<'_>, StartError> {
        let sent = self.send_probe(probe).await?;
        let response = self.send(&Plan::Unnamed, candidate).await;
        // If the statement was not sent, nobody gives up the probe for it.
        self.finish_probe(sent).await?;
        read_head(response?, &mut Plan::Unnamed).await
    }

    /// Sends the probe; the caller sends its own request behind it at once.
    pub(super) async fn send_probe<'a>(
        &'a self,
        probe: Probe<'a>,
    ) -> Result<SentProbe<'a>, Failure> {
        let (name, sql) = probe.statement();
        let mut messages = Messages::default();
        let encoded = messages
            // A probe that was cancelled has not closed its name.
            .close(&name)
            .and_then(|()| messages.parse(&name, &sql, &[]))
            .and_then(|()| messages.parse("", PREPARED, &[TEXT]))
            .and_then(|()| messages.bind("", &[Some(sql.into_bytes())]));
        encoded.map_err(Failure::Unsendable)?;
        messages.describe();
        messages.execute();
        messages.close(&name).map_err(Failure::Unsendable)?;
        messages.sync();
        // Without the preamble: the probe must not be the first statement of a transaction.
        let request = Request::from(messages);
        let response = self.session.send_without_preamble(&request).await?;
        Ok(SentProbe {
            probe,
            name,
            response,
        })
    }

    /// Waits for the response to the probe, and concludes it.
    pub(super) async fn finish_probe(&self, sent: SentProbe<'_>) -> Result<(), Failure> {
        let SentProbe {
            probe,
            name,
            response,
        } = sent;
        match only_row(response).await {
            Ok(row) => probe.conclude(self.support_shown_by(row, &name)),
            // A cancel request for the statement behind the probe, or a time-out, shows nothing about the pooler.
            Err(Failure::Server(error)) if error.code == QUERY_CANCELED => {
                tracing::debug!(error = error.message, "a probe was cancelled");
                if error.is_cancelled_by_request() {
                    self.session.cancel_rest();
                }
            }
            Err(Failure::Server(error)) if is_passing(&error.code) => {
                tracing::debug!(error = error.message, "the pooler is probed again later");
            }
            Err(Failure::Server(error)) => {
                tracing::warn!(error = error.message, "the pooler could not be probed");
                probe.conclude(Support::Unnamed);
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    fn support_shown_by(&self, row: Option<Row>, given: &str) -> Support {
        let Some(row) = row else {
            return Support::Unnamed;
        };
        let pid = row.value(1).and_then(|bytes| bytes.first_chunk().copied());
        match row.value(0) {
            Some(name) if name != given.as_bytes() => Support::Tracked,
            // A pooler reports a process ID at login that is no server's.
            _ if pid.map(i32::from_be_bytes) == Some(self.session.status().backend_pid()) => {
                Support::Direct
            }
            _ => Support::Unnamed,
        }
    }
}

/// Returns whether an error says nothing about the pooler: insufficient resources, an operator's intervention, a failure of
/// the server's system.
pub(super) fn is_passing(code: &str) -> bool {
    ["53", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// Returns the name under which the server has prepared a text, and the server's process ID.
const PREPARED: &str =
    "SELECT name, pg_backend_pid() FROM pg_prepared_statements WHERE statement = $1";
