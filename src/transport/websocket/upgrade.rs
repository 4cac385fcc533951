//! [`Upgrade`]: the request that turns HTTP/1.1 into a WebSocket, and its answer.

use bytes::BytesMut;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::super::http_head::HttpHead;
use super::error::WebSocketError;

/// A request for a WebSocket whose answer is outstanding.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The value that the answer must contain.
    accept: String,
}

impl Upgrade {
    /// Appends the request to `output`. The `host` has the form of the Host header.
    pub(super) fn request(host: &str, output: &mut BytesMut) -> Self {
        let key = generate_key();
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {AGENT}\r\n\r\n"
        );
        output.extend_from_slice(request.as_bytes());
        Self {
            accept: derive_accept_key(key.as_bytes()),
        }
    }

    /// Takes the answer off `input`. Returns false if more bytes are needed.
    pub(super) fn take_answer(&self, input: &mut BytesMut) -> Result<bool, WebSocketError> {
        let head = HttpHead::take(input).map_err(|_| WebSocketError::Answer("not HTTP/1.1's"))?;
        let Some(head) = head else {
            return Ok(false);
        };
        if head.status != 101 {
            return Err(WebSocketError::Refused {
                status: head.status,
                words: head.words(input),
            });
        }
        let names = |header, word: &str| {
            let words = head.header(header).unwrap_or_default();
            let mut words = words.split(',');
            words.any(|one| one.trim().eq_ignore_ascii_case(word))
        };
        if !names("upgrade", "websocket") || !names("connection", "upgrade") {
            return Err(WebSocketError::Answer("one to another protocol"));
        }
        if head.header("sec-websocket-accept").as_ref() != Some(&self.accept) {
            return Err(WebSocketError::Answer(
                "one to another request (Sec-WebSocket-Accept): something in between keeps answers",
            ));
        }
        if head.header("sec-websocket-extensions").is_some()
            || head.header("sec-websocket-protocol").is_some()
        {
            return Err(WebSocketError::Answer(
                "a choice of what was not offered (Sec-WebSocket-Extensions or -Protocol)",
            ));
        }
        Ok(true)
    }
}

/// Neon's proxy takes any path; its own clients use this one.
const PATH: &str = "/v2";

const AGENT: &str = concat!("diesel-neon/", env!("CARGO_PKG_VERSION"));
