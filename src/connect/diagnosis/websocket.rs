//! The failures of a WebSocket.

use super::entry::{Diagnosis, steps};
use crate::transport::WebSocketError;

/// Returns the diagnosis of a WebSocket that could not be opened, or was closed during the login.
pub(super) fn of_websocket(error: &WebSocketError) -> &'static Diagnosis {
    match error {
        WebSocketError::Refused { status, .. } => match status {
            401 | 403 | 407 => &FORBIDDEN,
            429 => &BUSY,
            500.. => &UNAVAILABLE,
            _ => &UNKNOWN,
        },
        WebSocketError::Closed { .. } | WebSocketError::Cut => &UNAVAILABLE,
        WebSocketError::Answer(_) | WebSocketError::Frame(_) | WebSocketError::Header(_) => {
            &UNKNOWN
        }
    }
}

steps! {
    FORBIDDEN = "websocket-forbidden", Forbidden,
        "what answers on port 443 does not let this machine open a WebSocket: a firewall, or a proxy that \
         looks into TLS",
        "have its administrator allow WebSockets to the database's host";

    BUSY = "websocket-busy", TooManyConnections,
        "the server's limit of requests is reached",
        "lower max_size or the number of instances, or wait";

    UNAVAILABLE = "websocket-unavailable", Unavailable,
        "the server or something in between ends the WebSocket: it is starting or stopping",
        "try again; if it stays, look for a firewall or a proxy in between";

    UNKNOWN = "websocket-unknown", Configuration,
        "what answers on port 443 makes no WebSockets that carry Postgres: it is not Neon's proxy, or \
         something in between answers in its place",
        "check the host in the database URL; transport=websocket is for Neon's hosts";

    METHOD = "websocket-method", Configuration,
        "Neon's proxy asks for the password itself over a WebSocket, and what answers here for something else",
        "use transport=tcp for servers that are not Neon's";
}
