//! Asks the other side whether statements may have names.

use super::Connection;
use super::response_head::{Refused, ResponseHead, only_row, read};
use super::statement_cache::Plan;
use super::types::TEXT;
use crate::pooler::{Names, Probe};
use crate::protocol::{Messages, QUERY_CANCELED, Request};
use crate::query::Binds;
use crate::query::Row;
use crate::session::{Failure, Response};

/// A question that was sent.
pub(super) struct Asked<'a> {
    question: Probe<'a>,
    name: String,
    answer: Response<'a>,
}

impl Connection {
    /// The right to ask, if it is not known yet. In a transaction a refusal would be its end.
    pub(super) fn question(&self) -> Option<Probe<'_>> {
        match self.pooler.names() {
            Names::Unknown if !self.session.status().in_transaction() => self.pooler.ask(),
            _ => None,
        }
    }

    /// Without a name, and in the same flight the question whether the next may have one.
    pub(super) async fn begin_asking(
        &self,
        question: Probe<'_>,
        sql: &str,
        oids: &[u32],
        binds: &Binds,
    ) -> Result<ResponseHead<'_>, Refused> {
        let asked = self.send_question(question).await?;
        let answer = self.send(&Plan::Unnamed, sql, oids, binds).await?;
        self.learn(asked).await?;
        read(answer, &mut Plan::Unnamed).await
    }

    /// Sends the question, which the next request is to follow at once.
    pub(super) async fn send_question<'a>(
        &'a self,
        question: Probe<'a>,
    ) -> Result<Asked<'a>, Failure> {
        let (name, probe) = question.probe();
        let mut messages = Messages::default();
        let encoded = messages
            // One that was cancelled has not taken its name back.
            .close(&name)
            .and_then(|()| messages.parse(&name, &probe, &[]))
            .and_then(|()| messages.parse("", PREPARED, &[TEXT]))
            .and_then(|()| messages.bind("", &[Some(probe.into_bytes())]));
        encoded.map_err(Failure::Unsendable)?;
        messages.describe();
        messages.execute();
        messages.close(&name).map_err(Failure::Unsendable)?;
        messages.sync();
        // In front: it must not be a transaction's first statement.
        let answer = self.session.send_ahead(Request::Extended(messages)).await?;
        Ok(Asked {
            question,
            name,
            answer,
        })
    }

    /// Waits for the answer.
    pub(super) async fn learn(&self, asked: Asked<'_>) -> Result<(), Failure> {
        let Asked {
            question,
            name,
            answer,
        } = asked;
        match only_row(answer).await {
            Ok(row) => question.answer(self.names_by(row, &name)),
            // A request to stop the statement behind it, or a time-out: of the pooler that says nothing.
            Err(Failure::Server(error)) if error.code == QUERY_CANCELED => {
                tracing::debug!(error = error.message, "the pooler's answer was cancelled");
                if error.is_cancelled_by_request() {
                    self.session.cancel_rest();
                }
            }
            Err(Failure::Server(error)) => {
                tracing::warn!(error = error.message, "the pooler could not be asked");
                question.answer(Names::Never);
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    fn names_by(&self, row: Option<Row>, given: &str) -> Names {
        let Some(row) = row else {
            return Names::Never;
        };
        let process = row.value(1).and_then(|bytes| bytes.first_chunk().copied());
        match row.value(0) {
            Some(name) if name != given.as_bytes() => Names::Tracked,
            // A pooler that tells nobody's process from another's does not track.
            _ if process.map(i32::from_be_bytes) == Some(self.session.status().process()) => {
                Names::Direct
            }
            _ => Names::Never,
        }
    }
}

/// What the server has prepared under that text, and which process it is.
const PREPARED: &str =
    "SELECT name, pg_backend_pid() FROM pg_prepared_statements WHERE statement = $1";
