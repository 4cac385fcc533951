//! The stand-in as a whole, as its users hold it.

mod assembly;
pub(crate) mod block_on;
pub(crate) mod builder;
pub(crate) mod config;
mod faults;
pub(crate) mod ground;
pub(crate) mod home;
pub(crate) mod neon_sim;
mod remote;
mod urls;
