//! Helpers that every module may use.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod comment;
pub(crate) mod ending;
mod error_debug;
mod lock;
pub(crate) mod statements;

pub(crate) use self::error_debug::debug_is_display;
pub(crate) use self::lock::lock;
