//! One session with a server.
//!
//! tokio-postgres logs in. It does so over a [`LoginTap`], which knows what that driver does not tell: whether a
//! transaction is open, whether a response is outstanding, and what the server's last error was. Once the session
//! is there, either tokio-postgres keeps it (for [`AsyncPgConnection`](diesel_async::AsyncPgConnection)), or a
//! [`SessionHandle`] takes the stream over and speaks the protocol itself (for
//! [`Connection`](crate::Connection)): only then does no named statement leave by accident, and only then can BEGIN
//! ride in front of a statement.

mod abandon;
mod cancel;
mod canceller;
mod channel;
mod control;
mod dispatch;
mod drain;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handle;
mod handoff;
mod input;
mod login;
mod orphan;
mod pending;
mod pipeline;
mod preamble;
mod response;
mod silence;
mod stall;
mod status;
mod tap;
mod transaction;
mod waiters;

pub(crate) use self::canceller::{CancelFailure, Canceller};
pub(crate) use self::channel::Channel;
pub(crate) use self::control::{Driver, SessionControl};
pub(crate) use self::error::Failure;
pub(crate) use self::handle::SessionHandle;
pub(crate) use self::handoff::StreamHandoff;
pub use self::login::LoginMethod;
pub(crate) use self::preamble::Command;
pub(crate) use self::response::Response;
pub(crate) use self::status::SessionStatus;
pub(crate) use self::tap::LoginTap;
pub(crate) use self::transaction::TransactionMonitor;
