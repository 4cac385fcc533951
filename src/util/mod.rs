//! Helpers that every module may use.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod comment;
pub(crate) mod effects;
pub(crate) mod error_chain;
mod lock;
pub(crate) mod statements;

pub(crate) use self::error_chain::debug_is_chain;
pub(crate) use self::lock::lock;
