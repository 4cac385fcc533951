//! [`ResponseHead`]: a response up to its first message behind the description of its rows.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use diesel::result::Error;

use super::rows::Rows;
use super::statement_cache::Plan;
use crate::protocol::tag::{self, status};
use crate::protocol::{Columns, Message, ServerError, affected};
use crate::query::Row;
use crate::session::{Failure, Response, SentPreamble};

/// The beginning of a statement's response: what is known of its rows, and the message that follows.
pub(super) struct ResponseHead<'a> {
    pub(super) response: Response<'a>,
    pub(super) rows: Rows,
    pub(super) next: Message,
}

/// Why a statement has not started.
pub(super) struct StartError {
    pub(super) failure: Failure,
    /// The commands that rode in front of the statement, if they may be sent again.
    pub(super) preamble: SentPreamble,
    /// Whether the statement has failed inside a transaction, which may have ended since.
    pub(super) has_failed_transaction: bool,
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            preamble: SentPreamble::default(),
            has_failed_transaction: false,
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        error.failure.into()
    }
}

/// Reads the head of a response; notes in `plan` that a statement is prepared.
pub(super) async fn read_head<'a>(
    mut response: Response<'a>,
    plan: &mut Plan<'_>,
) -> Result<ResponseHead<'a>, StartError> {
    let preamble = response.take_sent_preamble();
    let mut rows = plan.rows().clone();
    let read = poll_fn(|cx| poll_result(&mut response, &mut rows, plan, cx)).await;
    match read {
        Ok(next) if next.tag == tag::ERROR_RESPONSE => {
            let ready = response.rest().await?;
            Err(StartError {
                failure: Failure::Server(Box::new(ServerError::parse(&next.body))),
                preamble,
                has_failed_transaction: *ready.body == [status::IN_FAILED_TRANSACTION],
            })
        }
        Ok(next) => Ok(ResponseHead {
            response,
            rows,
            next,
        }),
        Err(failure) => Err(failure.into()),
    }
}

/// Polls for the first message behind the description of the rows.
fn poll_result(
    response: &mut Response<'_>,
    rows: &mut Rows,
    plan: &mut Plan<'_>,
    cx: &mut Context<'_>,
) -> Poll<Result<Message, Failure>> {
    loop {
        let message = ready!(response.poll_message(cx))?;
        match message.tag {
            tag::PARSE_COMPLETE => {
                if let Plan::Prepare(preparing) = plan {
                    preparing.set_prepared();
                }
            }
            tag::PARAMETER_DESCRIPTION => {}
            tag::NO_DATA => *rows = Rows::None,
            tag::ROW_DESCRIPTION => match rows {
                Rows::Columns(known) if known.are_described_by(&message.body) => {}
                _ => {
                    let read = Columns::read(&message.body);
                    let read = read.map_err(|malformed| response.set_lost(malformed))?;
                    *rows = Rows::Columns(Arc::new(read));
                }
            },
            _ => return Poll::Ready(Ok(message)),
        }
    }
}

/// Reads a response to its end and returns the last row.
pub(super) async fn only_row(response: Response<'_>) -> Result<Option<Row>, Failure> {
    let head = read_head(response, &mut Plan::Unnamed).await;
    let ResponseHead {
        mut response,
        rows,
        mut next,
    } = head.map_err(|error| error.failure)?;
    let columns = rows.columns();
    let mut row = None;
    while next.tag != tag::READY_FOR_QUERY {
        match next.tag {
            tag::DATA_ROW => {
                let read = Row::new(Arc::clone(&columns), next.body);
                row = Some(read.map_err(|malformed| response.set_lost(malformed))?);
            }
            tag::ERROR_RESPONSE => return Err(response.fail(ServerError::parse(&next.body)).await),
            _ => {}
        }
        next = response.message().await?;
    }
    Ok(row)
}

/// Reads a response to its end and returns how many rows the statement has affected.
pub(super) async fn affected_rows(head: ResponseHead<'_>) -> Result<usize, Failure> {
    let ResponseHead {
        mut response,
        mut next,
        ..
    } = head;
    let mut rows = 0;
    while next.tag != tag::READY_FOR_QUERY {
        match next.tag {
            tag::COMMAND_COMPLETE => rows = affected(&next.body),
            tag::ERROR_RESPONSE => return Err(response.fail(ServerError::parse(&next.body)).await),
            _ => {}
        }
        next = response.message().await?;
    }
    Ok(rows)
}
