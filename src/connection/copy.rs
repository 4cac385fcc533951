//! COPY to and from the client: [`CopyOut`] and [`CopyIn`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use diesel::result::{Error, QueryResult};
use futures_util::Stream;

use super::Connection;
use crate::protocol::{Messages, Request, ServerError, affected, tag};
use crate::session::{Failure, Response};

impl Connection {
    /// Runs a `COPY … TO STDOUT` and streams its data.
    ///
    /// # Errors
    ///
    /// The server's error; SQLSTATE `42601` if the statement is no `COPY … TO STDOUT`.
    pub async fn copy_out(&mut self, copy: &str) -> QueryResult<CopyOut<'_>> {
        let response = self.copy(copy, tag::COPY_OUT_RESPONSE).await?;
        Ok(CopyOut {
            response: Some(response),
            failed: None,
        })
    }

    /// Runs a `COPY … FROM STDIN`, and returns a [`CopyIn`] that takes its data.
    ///
    /// Behind a PgBouncer, a large load that the server may refuse belongs on the direct endpoint: a COPY that fails, or is
    /// cancelled, while its data are under way gives its server back, and the rest of the data may reach another client's (seen
    /// with 1.18 and 1.24: that client's statement fails, with "invalid frontend message type").
    ///
    /// # Errors
    ///
    /// The server's error; SQLSTATE `42601` if the statement is no `COPY … FROM STDIN`.
    pub async fn copy_in(&mut self, copy: &str) -> QueryResult<CopyIn<'_>> {
        let response = self.copy(copy, tag::COPY_IN_RESPONSE).await?;
        Ok(CopyIn {
            response: Some(response),
            is_torn: false,
        })
    }

    async fn copy(&self, copy: &str, direction: u8) -> Result<Response<'_>, Failure> {
        let request = Request::Copy(copy.to_owned());
        let mut response = self.send_text(&request).await?;
        let preamble = response.take_preamble();
        loop {
            let message = response.message().await?;
            match message.tag {
                tag if tag == direction => return Ok(response),
                tag::ERROR_RESPONSE => {
                    let error = response.error(&message.body);
                    let failure = response.fail(error).await;
                    return match self.retry_begin(&failure, preamble).await? {
                        true => Box::pin(self.copy(copy, direction)).await,
                        false => Err(failure),
                    };
                }
                tag::COPY_IN_RESPONSE => fail(&response, "the data goes the other way"),
                tag::READY_FOR_QUERY => {
                    let error = ServerError::local("42601", "the statement does not copy that way");
                    return Err(Failure::Server(Box::new(error)));
                }
                _ => {}
            }
        }
    }
}

/// Ends a COPY that is under way with an error.
fn fail(response: &Response<'_>, reason: &str) {
    let mut messages = Messages::default();
    if messages.copy_fail(reason).is_ok() {
        response.end_copy(&messages);
    }
}

/// The data of a `COPY … TO STDOUT`, in the pieces that the server sends (one row each, as a rule).
///
/// If it is dropped before its end, the rest is read in front of the next response, as with a
/// [`RowStream`](crate::RowStream).
#[derive(Debug)]
#[must_use = "data is read as the stream is polled"]
pub struct CopyOut<'conn> {
    response: Option<Response<'conn>>,
    failed: Option<ServerError>,
}

impl Stream for CopyOut<'_> {
    type Item = QueryResult<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(response) = &mut self.response else {
                return Poll::Ready(None);
            };
            let message = match ready!(response.poll_message(cx)) {
                Ok(message) => message,
                Err(lost) => {
                    self.response = None;
                    return Poll::Ready(Some(Err(lost.into())));
                }
            };
            match message.tag {
                tag::COPY_DATA => {
                    response.set_satisfied();
                    return Poll::Ready(Some(Ok(message.body)));
                }
                tag::ERROR_RESPONSE => self.failed = Some(response.error(&message.body)),
                tag::COPY_IN_RESPONSE => fail(response, ONE_COPY),
                tag::READY_FOR_QUERY => {
                    self.response = None;
                    let failed = self.failed.take().map(|e| Failure::Server(Box::new(e)));
                    return Poll::Ready(failed.map(|failure| Err(Error::from(failure))));
                }
                _ => {}
            }
        }
    }
}

/// Takes the data of a `COPY … FROM STDIN`. If it is dropped before [`finish`](Self::finish), nothing is copied.
#[derive(Debug)]
#[must_use = "nothing is copied before finish() is called"]
pub struct CopyIn<'conn> {
    response: Option<Response<'conn>>,
    /// Whether a part of a piece was sent, and the rest was not.
    is_torn: bool,
}

impl CopyIn<'_> {
    /// Sends a piece of the data, and waits while more than 64 KiB are unwritten. A piece may end anywhere, also within a
    /// row.
    ///
    /// If the future is dropped, nothing of the piece was sent, and it may be sent again. A piece of more than 1 MiB goes in
    /// parts: if some of them were sent, [`finish`](Self::finish) fails, and nothing is copied.
    ///
    /// # Errors
    ///
    /// If the connection is lost. An error in the data is returned by [`finish`](Self::finish); data behind it is not
    /// sent.
    pub async fn send(&mut self, data: &[u8]) -> QueryResult<()> {
        let Some(response) = &mut self.response else {
            return Ok(());
        };
        if self.is_torn {
            return Ok(());
        }
        let mut parts = data.chunks(MAX_MESSAGE).peekable();
        while let Some(part) = parts.next() {
            let mut head = Messages::default();
            head.begin_copy_data(part.len())
                .map_err(Failure::Unsendable)?;
            response.stream(&head, part).await?;
            self.is_torn = parts.peek().is_some();
        }
        Ok(())
    }

    /// Ends the data and returns how many rows were copied.
    ///
    /// # Errors
    ///
    /// The server's error: nothing is copied then. SQLSTATE `57014` if a [`send`](Self::send) was dropped in the middle.
    pub async fn finish(mut self) -> QueryResult<usize> {
        let Some(mut response) = self.response.take() else {
            return Ok(0);
        };
        if self.is_torn {
            fail(&response, TORN);
        } else {
            let mut messages = Messages::default();
            messages.copy_done();
            response.end_copy(&messages);
        }
        let mut rows = None;
        loop {
            let message = response.message().await.map_err(Error::from)?;
            match message.tag {
                // Other commands of the text may follow.
                tag::COMMAND_COMPLETE => {
                    rows.get_or_insert_with(|| affected(&message.body));
                }
                tag::COPY_IN_RESPONSE => fail(&response, ONE_COPY),
                tag::ERROR_RESPONSE => {
                    let error = response.error(&message.body);
                    return Err(response.fail(error).await.into());
                }
                tag::READY_FOR_QUERY => return Ok(rows.unwrap_or(0)),
                _ => {}
            }
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if let Some(response) = &mut self.response {
            fail(response, "the copy was dropped before it was finished");
            // The server ends it by itself.
            response.set_satisfied();
        }
    }
}

/// Why a second COPY of one text fails: no caller has data for it, and the server would wait for ever.
const ONE_COPY: &str = "one text can copy from STDIN once";

/// Why a COPY fails of which a caller has sent a part of a piece: the last row may be cut off.
const TORN: &str = "a send was dropped in the middle of its data";

/// How many bytes one message takes.
const MAX_MESSAGE: usize = 1024 * 1024;
