//! Runs SQL through the simple protocol.
//!
//! The server parses the whole text before it runs any of it. If the SQL cannot be parsed, a command in front of it in the
//! same text does not run either: a SAVEPOINT is sent in a text of its own, and a BEGIN is sent again.

use diesel::result::QueryResult;
use futures_util::future::BoxFuture;

use super::Connection;
use super::probe::is_passing;
use super::report::Report;
use crate::protocol::{Messages, Request, command_tag, tag};
use crate::session::{Command, Failure, Response};
use crate::util::effects::without_blanks;

impl Connection {
    /// Runs SQL of the caller.
    pub(super) async fn batch(&self, sql: &str) -> QueryResult<()> {
        self.record_start(sql);
        let report = Report::of_started(self, sql);
        let done = match self.refuse_listen(sql) {
            Ok(()) => self.simple(sql.to_owned(), false).await.map(drop),
            Err(error) => Err(error),
        };
        report.finish(done.as_ref().err());
        done
    }

    /// Runs SQL and returns the tag of the last command. SQL of the connection's own, `without_preamble`, runs before a
    /// transaction that is yet to begin.
    pub(super) async fn simple(&self, sql: String, without_preamble: bool) -> QueryResult<String> {
        // A check of the connection, which is empty, is not to fail because of a probe.
        let probe = match without_preamble || sql.is_empty() {
            true => None,
            false => self.probe(),
        };
        let sent = match probe {
            Some(probe) => Some(Box::pin(self.send_probe(probe)).await?),
            None => None,
        };
        let again = (!without_preamble && self.session.preamble_len() > 0).then(|| sql.clone());
        let request = Request::Simple(sql);
        let response = match without_preamble {
            true => self.session.send_without_preamble(&request).await,
            false => self.send_text(&request).await,
        };
        if let Some(sent) = sent {
            Box::pin(self.finish_probe(sent)).await?;
        }
        let mut response = response?;
        let preamble = response.take_preamble();
        match self.last_tag(response).await {
            Ok(tag) => Ok(tag),
            Err(failure) => match again {
                Some(sql) if self.retry_begin(&failure, preamble).await? => {
                    Box::pin(self.simple(sql, false)).await
                }
                _ => Err(failure.into()),
            },
        }
    }

    /// Sends SQL with the pending commands in front of it.
    pub(super) async fn send_text(&self, request: &Request) -> Result<Response<'_>, Failure> {
        match request {
            // Blank SQL behind a BEGIN would have no response of its own, and needs no BEGIN.
            Request::Simple(sql) | Request::Copy(sql) if without_blanks(sql).is_empty() => {
                self.session.send_without_preamble(request).await
            }
            _ => self.session.send(request).await,
        }
    }

    /// Sends the BEGIN of `preamble` again if it has failed because it was in one text with SQL that cannot be parsed, and
    /// not because the text was cancelled. Returns whether it has succeeded now, so that the SQL is to be sent again: the
    /// SQL then fails inside the transaction.
    pub(super) fn retry_begin<'a>(
        &'a self,
        failure: &Failure,
        preamble: Vec<Command>,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        let is_lasting = matches!(failure, Failure::Server(error) if !is_passing(&error.code));
        let has_failed = is_lasting && self.session.has_failed_begin();
        Box::pin(async move {
            if preamble.is_empty() || !has_failed {
                return Ok(false);
            }
            preamble
                .into_iter()
                .for_each(|command| self.session.push_preamble(command));
            let mut empty = Messages::default();
            empty.command("").map_err(Failure::Unsendable)?;
            empty.sync();
            let response = self.session.send(&Request::from(empty)).await?;
            self.last_tag(response).await.map(|_| true)
        })
    }

    /// Reads a response to its end and returns the tag of the last command.
    async fn last_tag(&self, mut response: Response<'_>) -> Result<String, Failure> {
        let mut last = String::new();
        loop {
            let message = response.message().await?;
            match message.tag {
                tag::COMMAND_COMPLETE => {
                    last = command_tag(&message.body).to_owned();
                }
                tag::ERROR_RESPONSE => {
                    let error = response.error(&message.body);
                    return Err(response.fail(error).await);
                }
                tag::READY_FOR_QUERY => return Ok(last),
                _ => {}
            }
        }
    }
}
