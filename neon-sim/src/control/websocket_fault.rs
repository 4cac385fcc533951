//! What Neon's proxy does not say to a WebSocket, but something in between might.

/// A fault that a WebSocket meets, see [`NeonSim::disturb_websockets`](crate::NeonSim::disturb_websockets).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebSocketFault {
    /// Its request is answered with a page instead.
    Answer {
        /// The status code, from 200 on; one that is none becomes 502.
        status: u16,
        /// The page.
        body: String,
    },
    /// Its request is granted, then a close frame comes and the connection ends.
    Close {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// Each message to the client comes in two fragments.
    Fragmented,
    /// Its request is never answered.
    NoAnswer,
    /// A ping comes with the first data.
    Ping(Vec<u8>),
    /// A text message comes with the first data.
    Text(String),
    /// Its request is granted with another key than the client's.
    WrongAccept,
}
