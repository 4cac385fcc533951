//! A proxy of HTTP between a client and the stand-in, as companies have one.

mod connection;
pub(crate) mod proxy;
pub(crate) mod state;
mod tunnel;
