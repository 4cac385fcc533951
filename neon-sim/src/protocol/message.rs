//! The few messages of the PostgreSQL protocol that the proxy reads and writes by itself.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::tag::{backend, field};

/// More than any startup packet needs, and any message of a server before it is ready.
pub(crate) const LIMIT: u32 = 64 * 1024;

/// Reads the tag and the body of a message whose body has at most `limit` bytes.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    limit: u32,
) -> io::Result<(u8, Vec<u8>)> {
    let tag = stream.read_u8().await?;
    let length = stream.read_u32().await?.checked_sub(4);
    let length = length.filter(|length| *length <= limit);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok((tag, body))
}

/// Returns a message with its tag and length.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

/// Returns a message of the authentication family.
pub(crate) fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(
        backend::AUTHENTICATION,
        &[&kind.to_be_bytes(), body].concat(),
    )
}

/// Returns an error of the proxy's own, of the connection phase.
pub(crate) fn proxy_error(text: &str) -> Vec<u8> {
    error_response(&[
        (field::SEVERITY, "ERROR"),
        (field::SQLSTATE, "XX000"),
        (field::MESSAGE, text),
    ])
}

/// Returns PostgreSQL's words about a database that does not exist.
pub(crate) fn no_database(name: &str) -> String {
    format!("database \"{name}\" does not exist")
}

/// Returns what PostgreSQL says to a session that an administrator ends.
pub(crate) fn admin_shutdown() -> Vec<u8> {
    error_response(&[
        (field::SEVERITY, "FATAL"),
        (field::SEVERITY_CODE, "FATAL"),
        (field::SQLSTATE, "57P01"),
        (
            field::MESSAGE,
            "terminating connection due to administrator command",
        ),
        (field::FILE, "postgres.c"),
        (field::LINE, "3193"),
        (field::ROUTINE, "ProcessInterrupts"),
    ])
}

fn error_response(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in fields {
        body.push(*field);
        push_string(&mut body, value);
    }
    body.push(0);
    message(backend::ERROR_RESPONSE, &body)
}

/// Returns the message field of an ErrorResponse.
pub(crate) fn error_message(body: &[u8]) -> String {
    error_field(body, field::MESSAGE).unwrap_or_default()
}

/// Returns a field of an ErrorResponse.
pub(crate) fn error_field(body: &[u8], field: u8) -> Option<String> {
    body.split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(&[field]))
        .map(|text| String::from_utf8_lossy(text).into_owned())
}

pub(crate) fn push_string(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}
