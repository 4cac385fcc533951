//! One session with a server.
//!
//! tokio-postgres logs in. It does so over a [`LoginTap`], which notes in a [`SessionStatus`] what that driver does not
//! tell: whether a transaction is open, whether a response is outstanding, and what the server's last error was. Once the
//! session is established, either tokio-postgres keeps the stream (for
//! [`AsyncPgConnection`](diesel_async::AsyncPgConnection)), or a [`SessionHandle`] takes it over and speaks the protocol
//! itself (for [`Connection`](crate::Connection)): only then is no statement named by accident, and only then can BEGIN
//! ride in front of a statement.
//!
//! In reading order:
//!
//! - `tap`, `login`, `early_password`, `handoff`: reads along with the login, times it, shortens it over a WebSocket, and
//!   takes its stream over.
//! - `status`, `channel`: what is known of a session, and its stream.
//! - `possible_bounds`, `schema_changes`: what its statements may have done to transactions, tables and types.
//! - `preamble`, `input`, `pending`: the parts of a pipeline: commands in front of a request, bytes that were read,
//!   requests that are outstanding.
//! - `pipelining`, `pipeline`, `output`, `dispatch`: writes requests, behind one another where the pooler allows it, reads
//!   messages, and finds the request that each answers.
//! - `waiters`, `handle`: the futures that share a pipeline, and the lock between them.
//! - `process`: which process of the server runs the statements.
//! - `stall`, `response_timeout`, `response`: sends a request and reads its response; how long it waits for others and the server.
//! - `transaction`: what rides in front of a transaction's first statement, and the guard of its future.
//! - `canceller`, `cancel`: cancel requests, and how one that is late is kept from the next statement.
//! - `abandon`, `drain`, `orphan`, `control`: how the statement of a dropped future is cancelled.
//! - `verdict`, `condemned`: how a statement ends whose server is silent.
//!
//! A dropped statement goes this way: the [`Response`] is dropped before its end and calls [`SessionHandle::abandon`]
//! (`orphan`). A task waits until the response is complete, or late (`abandon`). If it is late, the pipeline gives up its
//! stream as a `DrainStream` (`drain`), and [`Canceller::cancel_until_answered`] repeats the cancel request until the
//! server has answered (`canceller`). A session that tokio-postgres drives goes the same way from
//! [`SessionControl::abandon`] on (`control`).

mod abandon;
mod cancel;
mod canceller;
mod channel;
mod condemned;
mod control;
mod dispatch;
mod drain;
mod early_password;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handle;
mod handoff;
mod input;
mod login;
mod orphan;
mod output;
mod pending;
mod pipeline;
mod pipelining;
mod possible_bounds;
mod preamble;
mod process;
mod response;
mod response_timeout;
mod schema_changes;
mod stall;
mod status;
mod tap;
mod transaction;
mod verdict;
mod waiters;

pub(crate) use self::canceller::{CancelFailure, Canceller};
pub(crate) use self::channel::Channel;
pub(crate) use self::condemned::Condemned;
pub(crate) use self::control::{Driver, SessionControl};
pub(crate) use self::early_password::EarlyPassword;
#[cfg(feature = "websocket")]
pub(crate) use self::early_password::OTHER_METHOD;
pub(crate) use self::error::Failure;
pub(crate) use self::handle::SessionHandle;
pub(crate) use self::handoff::StreamHandoff;
pub use self::login::LoginMethod;
pub(crate) use self::pipelining::Pipelining;
pub(crate) use self::preamble::{Command, SentPreamble};
pub(crate) use self::process::ServerProcess;
pub(crate) use self::response::Response;
pub(crate) use self::status::SessionStatus;
pub(crate) use self::tap::{ENDLESS_LOGIN, LoginTap};
pub(crate) use self::transaction::TransactionMonitor;
pub(crate) use self::verdict::Verdict;
