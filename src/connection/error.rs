//! A session's failures as Diesel's errors.

use diesel::result::Error;

use crate::protocol::ServerError;
use crate::query::{lost, server_error, unsendable};
use crate::session::Failure;

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Server(error) => server_error(error),
            Failure::Lost(cause) => lost(cause),
            Failure::Abandoned => Self::QueryBuilderError(Box::new(AbandonedTransaction(()))),
            Failure::Outdated => server_error(Box::new(ServerError::local(
                "0A000",
                "the plan of the statement is outdated",
            ))),
            Failure::Unread => Self::QueryBuilderError(Box::new(UnreadRows(()))),
            // The error is not the server's, and has no SQLSTATE.
            Failure::Unsendable(reason) => unsendable(ServerError::local("", &reason.text())),
        }
    }
}

/// The future of a transaction was dropped before its end: the next statement would run inside the transaction that is
/// still open, or outside any. In a transaction that was begun by hand, a dropped statement is enough, as nothing tells
/// whether the transaction's work goes on.
///
/// Diesel carries it as [`QueryBuilderError`](Error::QueryBuilderError).
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "the transaction was abandoned: its future was dropped before its end, so this connection runs no statement; \
     drop the connection, or roll back with Connection::roll_back_abandoned"
)]
pub struct AbandonedTransaction(());

/// The response to a statement is behind the rows of an earlier statement on the same connection: more than 1 MiB of
/// rows, of which none was read for 3 s.
///
/// Diesel carries it as [`QueryBuilderError`](Error::QueryBuilderError).
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "the rows of an earlier statement on this connection are unread, and the response is behind them: read or drop \
     that stream first; this statement may have run"
)]
pub struct UnreadRows(());

crate::util::debug_is_chain!(AbandonedTransaction, UnreadRows);
