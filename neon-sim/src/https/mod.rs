//! Neon's proxy on the port of HTTPS: PostgreSQL's protocol in a WebSocket.

mod frames;
pub(crate) mod listener;
mod upgrade;
mod websocket;
