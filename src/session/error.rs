//! [`Failure`]: why a request has no proper response.

use std::io;

use crate::protocol::{ServerError, Unsendable};

/// Why a request has no proper response.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The server has answered with an error.
    Server(Box<ServerError>),
    /// The session has ended; with the server's fatal error, if it sent one.
    Lost(Box<ServerError>),
    /// The request cannot be sent.
    Unsendable(Unsendable),
    /// A transaction was abandoned, and the request would run inside it.
    Abandoned,
    /// The request has a name or types of before a change of the schema, and was not sent.
    Outdated,
    /// The response is behind rows of another request that nobody reads.
    Unread,
}

/// Returns the error of a session whose stream has failed.
pub(super) fn connection_lost(error: &io::Error) -> ServerError {
    match error.kind() {
        // The stream ended without a close_notify of TLS, which proxies do not always send.
        io::ErrorKind::UnexpectedEof => closed(),
        _ => ServerError::local("08006", &format!("the connection was lost: {error}")),
    }
}

/// Returns the error of a session whose server has closed the stream.
pub(super) fn closed() -> ServerError {
    ServerError::local("08006", "the server closed the connection")
}
