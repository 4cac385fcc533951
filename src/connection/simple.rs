//! SQL through the simple protocol.
//!
//! The server parses the whole text before it runs any of it. So what is to run in front must not be in one
//! text with SQL that cannot be parsed: a savepoint travels on its own, and a BEGIN is sent again.

use diesel::result::QueryResult;
use futures_util::future::BoxFuture;

use super::Connection;
use crate::protocol::{Messages, Request, command_tag, tag};
use crate::session::{Command, Failure, Response};
use crate::util::ending::without_blanks;

impl Connection {
    pub(super) async fn batch(&self, sql: &str) -> QueryResult<()> {
        self.record_start(sql);
        let done = match self.refuse_listen(sql) {
            Ok(()) => self.simple(sql.to_owned(), false).await.map(drop),
            Err(error) => Err(error),
        };
        self.record_finish(sql, done.as_ref().err());
        done
    }

    /// Runs SQL and returns the last command's tag.
    pub(super) async fn simple(&self, sql: String, ahead: bool) -> QueryResult<String> {
        // A check is to find out one thing only.
        let question = match ahead || sql.is_empty() {
            true => None,
            false => self.question(),
        };
        let asked = match question {
            Some(question) => Some(Box::pin(self.send_question(question)).await?),
            None => None,
        };
        let again = (!ahead && self.session.preamble_len() > 0).then(|| sql.clone());
        let request = Request::Simple(sql);
        let mut answer = match ahead {
            true => self.session.send_ahead(request).await?,
            false => self.send_text(request).await?,
        };
        if let Some(asked) = asked {
            Box::pin(self.learn(asked)).await?;
        }
        let begun = answer.begun();
        match self.last_tag(answer).await {
            Ok(tag) => Ok(tag),
            Err(failure) => match again {
                Some(sql) if self.begin_alone(&failure, begun).await? => {
                    Box::pin(self.simple(sql, false)).await
                }
                _ => Err(failure.into()),
            },
        }
    }

    /// Sends SQL, behind what is to ride in front of it.
    pub(super) async fn send_text(&self, request: Request) -> Result<Response<'_>, Failure> {
        match &request {
            // It has no answer of its own behind a BEGIN, and needs none.
            Request::Simple(sql) | Request::Copy(sql) if without_blanks(sql).is_empty() => {
                self.session.send_ahead(request).await
            }
            _ => self.session.send(request).await,
        }
    }

    /// Begins the transaction that could not begin in one text with SQL that has failed; returns whether it
    /// has, so that the SQL is to be sent again: it fails inside of the transaction then.
    pub(super) fn begin_alone<'a>(
        &'a self,
        failure: &Failure,
        begun: Vec<Command>,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        let refused = matches!(failure, Failure::Server(_)) && self.session.is_refused();
        Box::pin(async move {
            if begun.is_empty() || !refused {
                return Ok(false);
            }
            begun
                .into_iter()
                .for_each(|command| self.session.open(command));
            let mut nothing = Messages::default();
            nothing.command("").map_err(Failure::Unsendable)?;
            nothing.sync();
            let answer = self.session.send(Request::Extended(nothing)).await?;
            self.last_tag(answer).await.map(|_| true)
        })
    }

    async fn last_tag(&self, mut answer: Response<'_>) -> Result<String, Failure> {
        let mut last = String::new();
        loop {
            let message = answer.message().await?;
            match message.tag {
                tag::COMMAND_COMPLETE => {
                    last = command_tag(&message.body).to_owned();
                    self.statements.completed(&last);
                }
                tag::ERROR_RESPONSE => {
                    let error = answer.error(&message.body);
                    return Err(answer.fail(error).await);
                }
                tag::READY_FOR_QUERY => return Ok(last),
                _ => {}
            }
        }
    }
}
