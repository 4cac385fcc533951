//! The Postgres protocol as data: bytes in, messages out. No I/O, and no clock.
//!
//! - `tag`: the tags of messages, by name.
//! - `frontend`: the client's messages.
//! - `backend`: the server's messages; `columns`: the one that tells a result's columns; `error`: the one that says why.
//! - `framing`: both, as they pass by.

mod backend;
mod columns;
mod error;
mod framing;
mod frontend;
pub(crate) mod tag;

pub(crate) use self::backend::{
    Fields, Malformed, Message, Next, affected, command_tag, is_command,
};
pub(crate) use self::columns::Columns;
pub(crate) use self::error::{Cause, QUERY_CANCELED, ServerError};
pub(crate) use self::framing::{FrameScanner, MAX_PREFIX};
pub(crate) use self::frontend::{Group, Messages, Request, Unsendable};
