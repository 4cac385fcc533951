//! Neon's proxy: from an accepted socket to an established session.

mod authentication;
pub(crate) mod backend;
mod backoff;
mod client;
pub(crate) mod link;
pub(crate) mod listener;
mod login;
mod relay;
mod route;
mod session;
pub(crate) mod shared;
pub(crate) mod timing;
pub(crate) mod tls;
