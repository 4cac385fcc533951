//! The packets without a tag: startup, requests for encryption, requests to cancel.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::message::{LIMIT, message, push_string};
use super::tag::backend;

/// What the names of protocol extensions begin with.
const EXTENSION: &str = "_pq_.";

const PROTOCOL_3_0: u32 = 0x0003_0000;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The first packet of a connection.
#[derive(Debug)]
pub(crate) enum FirstPacket {
    CancelRequest(CancelKey),
    GssRequest,
    SslRequest,
    Startup(Startup),
}

impl FirstPacket {
    /// Reads a packet that has no tag.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let length = stream.read_u32().await?;
        if !(8..=LIMIT).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let code = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 8];
        stream.read_exact(&mut body).await?;
        match (code, &body[..]) {
            (CANCEL, &[a, b, c, d, e, f, g, h]) => Ok(Self::CancelRequest(CancelKey {
                process: [a, b, c, d],
                secret: [e, f, g, h],
            })),
            (SSL, []) => Ok(Self::SslRequest),
            (GSS, []) => Ok(Self::GssRequest),
            (code, body) if code >> 16 == PROTOCOL_3_0 >> 16 => Ok(Self::Startup(Startup {
                minor: code as u16,
                parameters: parameters(body).ok_or(io::ErrorKind::InvalidData)?,
            })),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// What a statement under way is cancelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey {
    pub(crate) process: [u8; 4],
    pub(crate) secret: [u8; 4],
}

impl CancelKey {
    /// Returns the CancelRequest with this key.
    pub(crate) fn request(self) -> Vec<u8> {
        untagged(&[CANCEL.to_be_bytes(), self.process, self.secret].concat())
    }

    /// Returns the BackendKeyData that tells a client this key.
    pub(crate) fn key_data(self) -> Vec<u8> {
        let body = [self.process, self.secret].concat();
        message(backend::BACKEND_KEY_DATA, &body)
    }
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

    /// Returns the parameters beside user, database, options and the protocol's extensions.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.parameters.iter();
        let all = all.map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(|(name, _)| {
            !matches!(*name, "user" | "database" | "options") && !name.starts_with(EXTENSION)
        })
    }

    /// Returns the answer to a client that asks for more than protocol 3.0.
    pub(crate) fn negotiation(&self) -> Option<Vec<u8>> {
        if self.minor == 0 {
            return None;
        }
        let unknown: Vec<_> = self
            .parameters
            .iter()
            .filter(|(name, _)| name.starts_with(EXTENSION))
            .collect();
        let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
        body.extend((unknown.len() as u32).to_be_bytes());
        for (name, _) in unknown {
            push_string(&mut body, name);
        }
        Some(message(backend::NEGOTIATE_PROTOCOL_VERSION, &body))
    }
}

/// Returns a startup packet of protocol 3.0.
pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for (name, value) in parameters {
        push_string(&mut body, name);
        push_string(&mut body, value);
    }
    body.push(0);
    untagged(&body)
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

fn untagged(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes(), body].concat()
}
