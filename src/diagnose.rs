//! What a tool needs that says why an application does not reach its database, such as the command
//! `diesel-neon doctor`.

pub use crate::connection::is_utc;
