//! The few messages of the PostgreSQL protocol that the proxy reads and writes by itself.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any startup packet needs, and any message of a server before it is ready.
pub(crate) const LIMIT: u32 = 64 * 1024;

/// What the names of protocol extensions begin with.
pub(crate) const EXTENSION: &str = "_pq_.";

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The first thing a client says.
#[derive(Debug)]
pub(crate) enum Opening {
    Cancel(Key),
    Gss,
    Ssl,
    Startup(Startup),
}

/// What a running query is cancelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) process: [u8; 4],
    pub(crate) secret: [u8; 4],
}

/// The startup packet.
#[derive(Debug, Default)]
pub(crate) struct Startup {
    pub(crate) minor: u16,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Startup {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The parameters beside those that every server has an eye on.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.parameters.iter();
        let all = all.map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(|(name, _)| {
            !matches!(*name, "user" | "database" | "options") && !name.starts_with(EXTENSION)
        })
    }

    /// The answer to a client that hopes for more than protocol 3.0.
    pub(crate) fn negotiation(&self) -> Option<Vec<u8>> {
        if self.minor == 0 {
            return None;
        }
        let unknown: Vec<_> = self
            .parameters
            .iter()
            .filter(|(name, _)| name.starts_with(EXTENSION))
            .collect();
        let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
        body.extend((unknown.len() as u32).to_be_bytes());
        for (name, _) in unknown {
            string(&mut body, name);
        }
        Some(message(b'v', &body))
    }
}

/// Reads one packet of the kind that has no type byte.
pub(crate) async fn opening(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Opening> {
    let length = stream.read_u32().await?;
    if !(8..=LIMIT).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let code = stream.read_u32().await?;
    let mut body = vec![0; length as usize - 8];
    stream.read_exact(&mut body).await?;
    match (code, &body[..]) {
        (CANCEL, &[a, b, c, d, e, f, g, h]) => Ok(Opening::Cancel(Key {
            process: [a, b, c, d],
            secret: [e, f, g, h],
        })),
        (SSL, []) => Ok(Opening::Ssl),
        (GSS, []) => Ok(Opening::Gss),
        (code, body) if code >> 16 == 3 => Ok(Opening::Startup(Startup {
            minor: code as u16,
            parameters: parameters(body).ok_or(io::ErrorKind::InvalidData)?,
        })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn parameters(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = str::from_utf8(body).ok()?;
    let mut strings = text.split('\0');
    let mut parameters = Vec::new();
    loop {
        match strings.next()? {
            "" => return Some(parameters),
            name => parameters.push((name.to_owned(), strings.next()?.to_owned())),
        }
    }
}

/// Reads one message with a type byte and a body of at most `limit` bytes.
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

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

/// A message of the authentication family.
pub(crate) fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), body].concat())
}

/// An error of the proxy's own, of the connection phase.
pub(crate) fn error(text: &str) -> Vec<u8> {
    error_response(&[(b'S', "ERROR"), (b'C', "XX000"), (b'M', text)])
}

/// What PostgreSQL says to a session that an administrator ends.
pub(crate) fn shutdown() -> Vec<u8> {
    error_response(&[
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "57P01"),
        (b'M', "terminating connection due to administrator command"),
        (b'F', "postgres.c"),
        (b'L', "3193"),
        (b'R', "ProcessInterrupts"),
    ])
}

fn error_response(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in fields {
        body.push(*field);
        string(&mut body, value);
    }
    body.push(0);
    message(b'E', &body)
}

/// The text of an ErrorResponse.
pub(crate) fn error_text(body: &[u8]) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"M"))
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .unwrap_or_default()
}

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        string(&mut body, name);
        string(&mut body, value);
    }
    body.push(0);
    untagged(&body)
}

pub(crate) fn cancel_request(key: Key) -> Vec<u8> {
    untagged(&[CANCEL.to_be_bytes(), key.process, key.secret].concat())
}

pub(crate) fn key_data(key: Key) -> Vec<u8> {
    message(b'K', &[key.process, key.secret].concat())
}

fn untagged(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn string(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}
