//! [`Begun`]: an answer, once it is known what its rows are made of.

use std::sync::Arc;

use super::Row;
use super::statements::{Plan, Prepared};
use crate::wire::{Answer, Column, Failure, Message, ServerError, affected, columns};

/// The first of a statement's answer: whether it will have rows, and the message behind that.
pub(super) struct Begun<'a> {
    pub(super) answer: Answer<'a>,
    pub(super) columns: Arc<[Column]>,
    pub(super) next: Message,
}

/// Reads on to the first message of the result proper.
pub(super) async fn begun<'a>(
    mut answer: Answer<'a>,
    plan: &mut Plan<'_>,
) -> Result<Begun<'a>, Failure> {
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
            b'1' => {
                if let Plan::Prepare(preparing) = plan {
                    preparing.prepared();
                }
            }
            b'2' | b't' | b'n' => {}
            b'T' => described = columns(&message.body)?.into(),
            b'E' => return Err(answer.fail(ServerError::parse(&message.body)).await),
            _ => {
                return Ok(Begun {
                    answer,
                    columns: described,
                    next: message,
                });
            }
        }
    }
}

/// Reads on to the end and returns the last row.
pub(super) async fn only_row(answer: Answer<'_>) -> Result<Option<Row>, Failure> {
    let Begun {
        mut answer,
        columns,
        mut next,
    } = begun(answer, &mut Plan::Unnamed).await?;
    let mut row = None;
    while next.tag != b'Z' {
        match next.tag {
            b'D' => row = Some(Row::new(Arc::clone(&columns), next.body)?),
            b'E' => return Err(answer.fail(ServerError::parse(&next.body)).await),
            _ => {}
        }
        next = answer.message().await?;
    }
    Ok(row)
}

/// Reads on to the end and returns how many rows the statement was about.
pub(super) async fn count(begun: Begun<'_>) -> Result<usize, Failure> {
    let Begun {
        mut answer,
        mut next,
        ..
    } = begun;
    let mut rows = 0;
    while next.tag != b'Z' {
        match next.tag {
            b'C' => rows = affected(&next.body),
            b'E' => return Err(answer.fail(ServerError::parse(&next.body)).await),
            _ => {}
        }
        next = answer.message().await?;
    }
    Ok(rows)
}
