//! [`WebSocketError`]: why there is no WebSocket, or no more.

/// A WebSocket could not be opened, or its stream is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebSocketError {
    /// The server answered the request with another status than 101.
    #[error("the server refused the WebSocket: {words}")]
    Refused {
        status: u16,
        /// The status and its reason, and what the server says in plain text.
        words: String,
    },
    /// The bytes are no answer of HTTP/1.1, or none that belongs to the request.
    #[error("the answer to the request for a WebSocket is {0}")]
    Answer(&'static str),
    /// The stream ended before the answer.
    #[error("the server closed the connection before it answered the request for a WebSocket")]
    Cut,
    /// The server closed the WebSocket with a code that means a failure.
    #[error("the server closed the WebSocket: {code} {reason}")]
    Closed {
        code: u16,
        /// The server's words, or the meaning of the code.
        reason: String,
    },
    /// A frame breaks the rules of RFC 6455, or is none that carries Postgres's protocol.
    #[error("the WebSocket carries {0}")]
    Frame(&'static str),
    /// A frame's header cannot be read.
    #[error("the WebSocket carries a malformed frame: {0}")]
    Header(String),
}

impl From<WebSocketError> for std::io::Error {
    fn from(error: WebSocketError) -> Self {
        Self::other(error)
    }
}
