//! Neon's proxy on the port of HTTPS: PostgreSQL's protocol in a WebSocket, and requests for SQL.

mod frames;
pub(crate) mod listener;
mod upgrade;
mod websocket;
