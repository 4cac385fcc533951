//! [`ResponseHead`]: an answer, once it is known what its rows are made of.

use std::sync::Arc;

use diesel::result::Error;

use super::statement_cache::{Plan, Prepared};
use crate::protocol::{Column, Message, ServerError, affected, columns, tag};
use crate::query::Row;
use crate::session::{Command, Failure, Response};

/// The first of a statement's answer: whether it will have rows, and the message behind that.
pub(super) struct ResponseHead<'a> {
    pub(super) answer: Response<'a>,
    pub(super) columns: Arc<[Column]>,
    pub(super) next: Message,
}

/// Why a statement has not begun.
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// What rode in front of it, where that may be done again.
    pub(super) commands: Vec<Command>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            commands: Vec::new(),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        refused.failure.into()
    }
}

/// Reads an answer's beginning.
pub(super) async fn read<'a>(
    mut answer: Response<'a>,
    plan: &mut Plan<'_>,
) -> Result<ResponseHead<'a>, Refused> {
    let commands = answer.begun();
    let begun = begun(answer, plan).await;
    begun.map_err(|failure| Refused { failure, commands })
}

/// Reads on to the first message of the result proper.
async fn begun<'a>(
    mut answer: Response<'a>,
    plan: &mut Plan<'_>,
) -> Result<ResponseHead<'a>, Failure> {
    let mut described = match plan {
        Plan::Named(Prepared {
            columns: Some(columns),
            ..
        }) => Arc::clone(columns),
        _ => Arc::from([]),
    };
    loop {
        let message = answer.message().await?;
        match message.tag {
            tag::PARSE_COMPLETE => {
                if let Plan::Prepare(preparing) = plan {
                    preparing.prepared();
                }
            }
            tag::BIND_COMPLETE | tag::PARAMETER_DESCRIPTION | tag::NO_DATA => {}
            tag::ROW_DESCRIPTION => described = columns(&message.body)?.into(),
            tag::ERROR_RESPONSE => {
                return Err(answer.fail(ServerError::parse(&message.body)).await);
            }
            _ => {
                return Ok(ResponseHead {
                    answer,
                    columns: described,
                    next: message,
                });
            }
        }
    }
}

/// Reads on to the end and returns the last row.
pub(super) async fn only_row(answer: Response<'_>) -> Result<Option<Row>, Failure> {
    let ResponseHead {
        mut answer,
        columns,
        mut next,
    } = begun(answer, &mut Plan::Unnamed).await?;
    let mut row = None;
    while next.tag != tag::READY_FOR_QUERY {
        match next.tag {
            tag::DATA_ROW => row = Some(Row::new(Arc::clone(&columns), next.body)?),
            tag::ERROR_RESPONSE => return Err(answer.fail(ServerError::parse(&next.body)).await),
            _ => {}
        }
        next = answer.message().await?;
    }
    Ok(row)
}

/// Reads on to the end and returns how many rows the statement was about.
pub(super) async fn count(begun: ResponseHead<'_>) -> Result<usize, Failure> {
    let ResponseHead {
        mut answer,
        mut next,
        ..
    } = begun;
    let mut rows = 0;
    while next.tag != tag::READY_FOR_QUERY {
        match next.tag {
            tag::COMMAND_COMPLETE => rows = affected(&next.body),
            tag::ERROR_RESPONSE => return Err(answer.fail(ServerError::parse(&next.body)).await),
            _ => {}
        }
        next = answer.message().await?;
    }
    Ok(rows)
}
