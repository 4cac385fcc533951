//! [`Failure`]: why a request has no proper response.

use crate::protocol::{Malformed, ServerError, Unsendable};

/// Why a request has no proper answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The server's error.
    Server(Box<ServerError>),
    /// There is no session any more; with the server's last words, where it had some.
    Lost(Box<ServerError>),
    /// The request cannot be sent.
    Unsendable(Unsendable),
    /// A transaction was abandoned, and the request would run inside of it.
    Abandoned,
    /// The answer is behind rows of another request that nobody reads.
    Unread,
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Lost(Box::new(malformed.into()))
    }
}
