//! [`Failure`]: why a request has no proper response.

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
    /// The response is behind rows of another request that nobody reads.
    Unread,
}
