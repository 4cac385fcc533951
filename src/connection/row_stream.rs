//! [`RowStream`]: the rows of an answer, as they come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use diesel::result::{Error, QueryResult};
use futures_util::Stream;

use super::Connection;
use super::response_head::ResponseHead;
use crate::protocol::{Column, Message, ServerError, tag};
use crate::query::Row;
use crate::session::{Failure, Response};

/// The rows of a statement, read from the server as they are asked for.
///
/// A row is handed out once it is known what follows it, and the last one once the statement has
/// succeeded as a whole. Dropped half-way, it leaves the rest to be read in front of the next answer; the
/// statement is cancelled, and the connection closed, where nothing comes for half a second, or where the
/// connection is given back first.
///
/// A statement behind rows that nobody reads, on the same connection, fails with
/// [`UnreadRows`](crate::UnreadRows) after some seconds: what is read ahead is bounded.
pub struct RowStream<'conn> {
    connection: &'conn Connection,
    sql: Arc<str>,
    finished: bool,
    columns: Arc<[Column]>,
    /// Gone at the end.
    answer: Option<Response<'conn>>,
    next: Option<Message>,
    held: Option<Row>,
    failed: Option<ServerError>,
}

impl<'conn> RowStream<'conn> {
    pub(super) fn new(
        connection: &'conn Connection,
        sql: Arc<str>,
        begun: ResponseHead<'conn>,
    ) -> Self {
        let ResponseHead {
            answer,
            columns,
            next,
        } = begun;
        Self {
            connection,
            sql,
            finished: false,
            columns,
            answer: Some(answer),
            next: Some(next),
            held: None,
            failed: None,
        }
    }

    fn poll_row(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Row, Failure>>> {
        loop {
            let Some(answer) = &mut self.answer else {
                return Poll::Ready(None);
            };
            let message = match self.next.take() {
                Some(message) => message,
                None => match ready!(answer.poll_message(cx)) {
                    Ok(message) => message,
                    Err(lost) => return Poll::Ready(Some(Err(lost))),
                },
            };
            match message.tag {
                tag::DATA_ROW if self.failed.is_none() => {
                    let row = Row::new(Arc::clone(&self.columns), message.body)?;
                    if let Some(row) = self.held.replace(row) {
                        answer.is_tail();
                        return Poll::Ready(Some(Ok(row)));
                    }
                }
                tag::ERROR_RESPONSE => {
                    self.held = None;
                    self.failed = Some(ServerError::parse(&message.body));
                }
                tag::READY_FOR_QUERY => {
                    self.answer = None;
                    return Poll::Ready(match self.failed.take() {
                        Some(error) => Some(Err(Failure::Server(Box::new(error)))),
                        None => self.held.take().map(Ok),
                    });
                }
                _ => {}
            }
        }
    }

    fn finish(&mut self, error: Option<&Error>) {
        if !std::mem::replace(&mut self.finished, true) {
            self.connection.record_finish(&self.sql, error);
        }
    }
}

impl Stream for RowStream<'_> {
    type Item = QueryResult<Row>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let row = ready!(self.poll_row(cx));
        Poll::Ready(match row {
            Some(Ok(row)) => Some(Ok(row)),
            Some(Err(failure)) => {
                self.answer = None;
                let error = failure.into();
                self.finish(Some(&error));
                Some(Err(error))
            }
            None => {
                self.finish(None);
                None
            }
        })
    }
}

impl Drop for RowStream<'_> {
    fn drop(&mut self) {
        self.finish(None);
    }
}

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream")
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}
