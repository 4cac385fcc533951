//! Neon's proxy on PostgreSQL's port, and all behind the handshake: from an accepted socket to an established session.

pub(crate) mod accept;
pub(crate) mod attend;
mod authentication;
pub(crate) mod backend;
mod backoff;
mod client;
pub(crate) mod door;
pub(crate) mod link;
pub(crate) mod listener;
mod login;
mod relay;
pub(crate) mod route;
mod session;
pub(crate) mod shared;
pub(crate) mod timing;
pub(crate) mod tls;
pub(crate) mod turns;
pub(crate) mod wake;
pub(crate) mod wire;
