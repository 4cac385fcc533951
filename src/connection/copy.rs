//! COPY, in and out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use diesel::result::{Error, QueryResult};
use futures_util::Stream;

use super::Connection;
use crate::protocol::{Messages, Request, ServerError, affected, tag};
use crate::session::{Failure, Response};

impl Connection {
    /// Runs a `COPY … TO STDOUT` and streams what it puts out.
    ///
    /// # Errors
    ///
    /// The server's; a statement that is no COPY is one.
    pub async fn copy_out(&mut self, copy: &str) -> QueryResult<CopyOut<'_>> {
        let answer = self.copy(copy, tag::COPY_OUT_RESPONSE).await?;
        Ok(CopyOut {
            answer: Some(answer),
            failed: None,
        })
    }

    /// Runs a `COPY … FROM STDIN`, whose data [`CopyIn`] takes.
    ///
    /// # Errors
    ///
    /// The server's; a statement that is no COPY is one.
    pub async fn copy_in(&mut self, copy: &str) -> QueryResult<CopyIn<'_>> {
        let answer = self.copy(copy, tag::COPY_IN_RESPONSE).await?;
        Ok(CopyIn {
            answer: Some(answer),
        })
    }

    async fn copy(&self, copy: &str, direction: u8) -> Result<Response<'_>, Failure> {
        let request = Request::Copy(copy.to_owned());
        let mut answer = self.send_text(request).await?;
        let begun = answer.begun();
        loop {
            let message = answer.message().await?;
            match message.tag {
                tag if tag == direction => return Ok(answer),
                tag::ERROR_RESPONSE => {
                    let error = answer.error(&message.body);
                    let failure = answer.fail(error).await;
                    return match self.begin_alone(&failure, begun).await? {
                        true => Box::pin(self.copy(copy, direction)).await,
                        false => Err(failure),
                    };
                }
                tag::COPY_IN_RESPONSE => stop(&answer, "the data goes the other way"),
                tag::READY_FOR_QUERY => {
                    let error = ServerError::local("42601", "the statement does not copy that way");
                    return Err(Failure::Server(Box::new(error)));
                }
                _ => {}
            }
        }
    }
}

fn stop(answer: &Response<'_>, reason: &str) {
    let mut messages = Messages::default();
    if messages.copy_fail(reason).is_ok() {
        answer.push(&messages);
    }
}

/// What a `COPY … TO STDOUT` puts out, as it comes. Dropped half-way, it leaves the rest to be read in front of the
/// next answer, as a [`RowStream`](crate::RowStream) does.
#[derive(Debug)]
pub struct CopyOut<'conn> {
    answer: Option<Response<'conn>>,
    failed: Option<ServerError>,
}

impl Stream for CopyOut<'_> {
    type Item = QueryResult<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(answer) = &mut self.answer else {
                return Poll::Ready(None);
            };
            let message = match ready!(answer.poll_message(cx)) {
                Ok(message) => message,
                Err(lost) => {
                    self.answer = None;
                    return Poll::Ready(Some(Err(lost.into())));
                }
            };
            match message.tag {
                tag::COPY_DATA => {
                    answer.is_tail();
                    return Poll::Ready(Some(Ok(message.body)));
                }
                tag::ERROR_RESPONSE => self.failed = Some(answer.error(&message.body)),
                tag::READY_FOR_QUERY => {
                    self.answer = None;
                    let failed = self.failed.take().map(|e| Failure::Server(Box::new(e)));
                    return Poll::Ready(failed.map(|failure| Err(Error::from(failure))));
                }
                _ => {}
            }
        }
    }
}

/// Takes the data of a `COPY … FROM STDIN`. Dropped before [`finish`](Self::finish), it has copied
/// nothing.
#[derive(Debug)]
pub struct CopyIn<'conn> {
    answer: Option<Response<'conn>>,
}

impl CopyIn<'_> {
    /// Sends some of the data; where it is cut means nothing.
    ///
    /// # Errors
    ///
    /// Where the connection is lost. What is wrong with the data shows at the end; data behind that is not sent.
    pub async fn send(&mut self, data: &[u8]) -> QueryResult<()> {
        let Some(answer) = &mut self.answer else {
            return Ok(());
        };
        for data in data.chunks(LARGEST) {
            let mut messages = Messages::default();
            messages.copy_data(data).map_err(Failure::Unsendable)?;
            answer.stream(&messages).await?;
        }
        Ok(())
    }

    /// Ends the data and returns how many rows were copied.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn finish(mut self) -> QueryResult<usize> {
        let Some(mut answer) = self.answer.take() else {
            return Ok(0);
        };
        let mut messages = Messages::default();
        messages.copy_done();
        answer.push(&messages);
        let mut rows = 0;
        loop {
            let message = answer.message().await.map_err(Error::from)?;
            match message.tag {
                tag::COMMAND_COMPLETE => rows = affected(&message.body),
                tag::ERROR_RESPONSE => {
                    let error = answer.error(&message.body);
                    return Err(answer.fail(error).await.into());
                }
                tag::READY_FOR_QUERY => return Ok(rows),
                _ => {}
            }
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if let Some(answer) = &self.answer {
            stop(answer, "the copy was given up");
        }
    }
}

/// What goes into one message.
const LARGEST: usize = 1024 * 1024;
