//! The Postgres protocol as data: bytes in, messages out. No I/O, and no clock.

mod backend;
mod error;
mod framing;
mod frontend;
pub(crate) mod tag;

pub(crate) use self::backend::{
    Column, Fields, Malformed, Message, Next, affected, columns, command_tag,
};
pub(crate) use self::error::{QUERY_CANCELED, ServerError};
pub(crate) use self::framing::{FrameScanner, KEPT};
pub(crate) use self::frontend::{Messages, Request, Unsendable};
