//! [`ResponseHead`]: a response up to its first message behind the description of its rows.

use std::sync::Arc;

use diesel::result::Error;

use super::rows::Rows;
use super::statement_cache::Plan;
use crate::protocol::{Columns, Message, ServerError, affected, tag};
use crate::query::Row;
use crate::session::{Command, Failure, Response};

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
    pub(super) preamble: Vec<Command>,
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            preamble: Vec::new(),
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
    let preamble = response.take_preamble();
    let head = read_to_result(response, plan).await;
    head.map_err(|failure| StartError { failure, preamble })
}

async fn read_to_result<'a>(
    mut response: Response<'a>,
    plan: &mut Plan<'_>,
) -> Result<ResponseHead<'a>, Failure> {
    let mut rows = plan.rows().clone();
    loop {
        let message = response.message().await?;
        match message.tag {
            tag::PARSE_COMPLETE => {
                if let Plan::Prepare(preparing) = plan {
                    preparing.set_prepared();
                }
            }
            tag::BIND_COMPLETE | tag::PARAMETER_DESCRIPTION => {}
            tag::NO_DATA => rows = Rows::None,
            tag::ROW_DESCRIPTION => match &rows {
                Rows::Columns(known) if known.are_described_by(&message.body) => {}
                _ => {
                    let read = Columns::read(&message.body);
                    let read = read.map_err(|malformed| response.set_lost(malformed))?;
                    rows = Rows::Columns(Arc::new(read));
                }
            },
            tag::ERROR_RESPONSE => {
                return Err(response.fail(ServerError::parse(&message.body)).await);
            }
            _ => {
                return Ok(ResponseHead {
                    response,
                    rows,
                    next: message,
                });
            }
        }
    }
}

/// Reads a response to its end and returns the last row.
pub(super) async fn only_row(response: Response<'_>) -> Result<Option<Row>, Failure> {
    let ResponseHead {
        mut response,
        rows,
        mut next,
    } = read_to_result(response, &mut Plan::Unnamed).await?;
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
