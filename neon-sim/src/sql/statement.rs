//! Runs one statement, with its parameters and its result in text.

use super::database::Session;
use super::failure::Failure;
use super::output::{Column, Form, push_columns, push_command, push_row};
use super::payload::{LIMIT, Query};
use crate::protocol::message::{message, push_string};
use crate::protocol::tag::{backend, frontend};

/// Runs a statement and appends its result to the answer.
pub(super) async fn run(
    session: &mut Session,
    query: &Query,
    form: Form,
    json: &mut String,
) -> Result<(), Failure> {
    session.send(&messages(query)?).await?;
    json.push_str(&format!("{{\"rowAsArray\":{},\"fields\":", form.array_mode));
    let (mut columns, mut rows, mut command, mut error) = (None, 0, String::new(), None);
    loop {
        let (tag, body) = match (session.read().await, error) {
            (Ok(message), told) => {
                error = told;
                message
            }
            // The last words of a server that has ended the session.
            (Err(_), Some(told)) => return Err(Failure::told(told)),
            (Err(failure), None) => return Err(failure),
        };
        match tag {
            backend::ROW_DESCRIPTION => {
                let described = Column::all(&body).ok_or_else(unparsable)?;
                push_columns(json, &described);
                json.push_str(",\"rows\":[");
                columns = Some(described);
            }
            backend::DATA_ROW => {
                if json.len() > LIMIT {
                    let message = format!("response is too large (max is {LIMIT} bytes)");
                    return Err(Failure::new(507, message));
                }
                if rows > 0 {
                    json.push(',');
                }
                rows += 1;
                let columns = columns.as_deref().unwrap_or_default();
                push_row(json, columns, &body, form).map_err(|_| unparsable())?;
            }
            backend::COMMAND_COMPLETE => {
                let text = body.strip_suffix(b"\0").unwrap_or(&body);
                command = String::from_utf8_lossy(text).into_owned();
            }
            backend::ERROR_RESPONSE => error = Some(body),
            backend::COPY_IN_RESPONSE
            | backend::COPY_OUT_RESPONSE
            | backend::COPY_BOTH_RESPONSE => {
                return Err(Failure::bad("unexpected message from server"));
            }
            backend::READY_FOR_QUERY => break,
            _ => {}
        }
    }
    if let Some(error) = error {
        return Err(Failure::told(error));
    }
    if columns.is_none() {
        json.push_str("[],\"rows\":[");
    }
    json.push(']');
    push_command(json, &command);
    json.push('}');
    Ok(())
}

fn unparsable() -> Failure {
    Failure::new(500, "could not parse postgres response")
}

/// Returns the messages of a statement, which is prepared without a name.
fn messages(query: &Query) -> Result<Vec<u8>, Failure> {
    if query.sql.contains('\0') {
        return Err(Failure::bad("string contains embedded null"));
    }
    let mut parse = vec![0];
    push_string(&mut parse, &query.sql);
    parse.extend([0, 0]);
    let too_many = |_| Failure::bad("value too large to transmit");
    let count = u16::try_from(query.parameters.len()).map_err(too_many)?;
    let mut bind = vec![0, 0, 0, 0];
    bind.extend(count.to_be_bytes());
    for parameter in &query.parameters {
        match parameter {
            None => bind.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                bind.extend((text.len() as u32).to_be_bytes());
                bind.extend(text.as_bytes());
            }
        }
    }
    bind.extend([0, 0]);
    Ok([
        message(frontend::PARSE, &parse),
        message(frontend::BIND, &bind),
        message(frontend::DESCRIBE, b"P\0"),
        message(frontend::EXECUTE, &[0, 0, 0, 0, 0]),
        message(frontend::SYNC, &[]),
    ]
    .concat())
}
