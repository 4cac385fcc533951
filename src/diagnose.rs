//! Helpers for tools that tell why an application does not reach its database, such as `diesel-neon doctor`.
//!
//! A [`Probe`] goes step by step where a pool's connection goes: name look-up, TCP, TLS, login. A step that fails returns
//! a [`ConnectError`](crate::ConnectError), whose [`Diagnosis`](crate::Diagnosis) says what it means and what to do.

pub use crate::connect::{Login, Probe, TlsInspection};
pub use crate::session::LoginMethod;
pub use crate::transport::{Address, Peer, TlsSession};
