//! [`RowStream`]: the rows of a response, as they arrive.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use diesel::result::{Error, QueryResult};
use futures_util::Stream;

use super::Connection;
use super::response_head::ResponseHead;
use crate::protocol::{Columns, Message, ServerError, tag};
use crate::query::Row;
use crate::session::{Failure, Response};

/// The rows of a statement, read from the server as the stream is polled.
///
/// The stream yields a row once the message behind it has arrived, and the last row once the statement has succeeded as
/// a whole.
///
/// If the stream is dropped before its end, the rest of the rows is read in front of the next response. The statement is
/// cancelled, and the connection closed, if no row arrives for 500 ms (for 100 ms if none was yielded before), or if the connection is given back to its pool
/// and the rest has not arrived 100 ms later.
///
/// Up to 1 MiB of unread rows is buffered while other statements run on the same connection. A statement behind more than
/// that fails with [`UnreadRows`](crate::UnreadRows) once no row was read for 3 s.
#[must_use = "rows are read as the stream is polled"]
pub struct RowStream<'conn> {
    connection: &'conn Connection,
    sql: Arc<str>,
    /// Whether instrumentation was told of the end.
    is_finished: bool,
    columns: Arc<Columns>,
    /// None at the end.
    response: Option<Response<'conn>>,
    next: Option<Message>,
    /// The row that is yielded once the message behind it has arrived.
    held_back: Option<Row>,
    failed: Option<Box<ServerError>>,
}

impl<'conn> RowStream<'conn> {
    pub(super) fn new(
        connection: &'conn Connection,
        sql: Arc<str>,
        head: ResponseHead<'conn>,
    ) -> Self {
        let ResponseHead {
            response,
            rows,
            next,
        } = head;
        Self {
            connection,
            sql,
            is_finished: false,
            columns: rows.columns(),
            response: Some(response),
            next: Some(next),
            held_back: None,
            failed: None,
        }
    }

    fn poll_row(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Row, Failure>>> {
        loop {
            let Some(response) = &mut self.response else {
                return Poll::Ready(None);
            };
            let message = match self.next.take() {
                Some(message) => message,
                None => match ready!(response.poll_message(cx)) {
                    Ok(message) => message,
                    Err(lost) => return Poll::Ready(Some(Err(lost))),
                },
            };
            match message.tag {
                tag::DATA_ROW if self.failed.is_none() => {
                    let row = Row::new(Arc::clone(&self.columns), message.body)
                        .map_err(|malformed| response.set_lost(malformed))?;
                    if let Some(row) = self.held_back.replace(row) {
                        response.set_satisfied();
                        return Poll::Ready(Some(Ok(row)));
                    }
                }
                tag::ERROR_RESPONSE => {
                    self.held_back = None;
                    self.failed = Some(Box::new(ServerError::parse(&message.body)));
                }
                tag::READY_FOR_QUERY => {
                    self.response = None;
                    return Poll::Ready(match self.failed.take() {
                        Some(error) => Some(Err(Failure::Server(error))),
                        None => self.held_back.take().map(Ok),
                    });
                }
                _ => {}
            }
        }
    }

    /// Notes that the caller can do without the rest of the rows, also if none was yielded.
    #[cfg(feature = "blocking")]
    pub(crate) fn set_satisfied(&mut self) {
        if let Some(response) = &mut self.response {
            response.set_satisfied();
        }
    }

    /// Tells instrumentation of the end.
    fn finish(&mut self, error: Option<&Error>) {
        if !std::mem::replace(&mut self.is_finished, true) {
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
                self.response = None;
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
