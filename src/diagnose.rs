//! What a tool needs that says why an application does not reach its database, such as the command
//! `diesel-neon doctor`.
//!
//! A [`Probe`] takes the way of a pool's connection step by step: name look-up, TCP, TLS, login. What failed is a
//! [`ConnectError`](crate::ConnectError), whose [`Diagnosis`](crate::Diagnosis) says what that means and what to do.

pub use crate::connect::{Login, Probe, TlsInspection};
pub use crate::connection::is_utc;
pub use crate::session::LoginMethod;
pub use crate::transport::{Address, Peer, TlsSession};
