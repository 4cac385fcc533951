//! The stand-in as a whole, as its users hold it.

mod assembly;
pub(crate) mod builder;
mod config;
pub(crate) mod neon_sim;
mod remote;
