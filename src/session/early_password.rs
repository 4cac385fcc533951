//! [`EarlyPassword`]: the password that leaves together with the startup message.

use std::fmt;
use std::io;

#[cfg(feature = "websocket")]
use crate::protocol::Messages;
use crate::protocol::tag::frontend;
use crate::transport::Transport;

/// The password of a login over a WebSocket, where Neon's proxy asks for the password itself whatever happens: to wait for
/// its question would cost a flight.
pub(crate) struct EarlyPassword(State);

enum State {
    /// The startup message has not been written.
    Due(Vec<u8>),
    /// The password was sent, and the server has not asked for it yet.
    Sent,
    /// The server has asked for the password, and tokio-postgres is about to answer.
    Asked,
    /// The server asks for something else.
    Refused,
    /// tokio-postgres goes on by itself.
    Over,
}

impl EarlyPassword {
    pub(crate) fn new(password: Option<&[u8]>) -> Self {
        Self(match password {
            Some(password) => State::Due(password.to_vec()),
            None => State::Over,
        })
    }

    /// Sends the password behind the startup message that was just written, if the stream is one for it. Returns whether
    /// it is.
    pub(super) fn send(&mut self, transport: &mut Transport) -> io::Result<bool> {
        let State::Due(password) = &self.0 else {
            return Ok(false);
        };
        #[cfg(feature = "websocket")]
        let is_sent = {
            let mut message = Messages::default();
            message.password(password);
            transport.push_password(message.as_bytes())?
        };
        #[cfg(not(feature = "websocket"))]
        let is_sent = {
            let _ = (transport, password);
            false
        };
        self.0 = match is_sent {
            true => State::Sent,
            false => State::Over,
        };
        Ok(is_sent)
    }

    /// Takes tokio-postgres's own answer to the question for the password, which was sent before. Returns whether
    /// `message` is that answer.
    pub(super) fn take_answer(&mut self, message: &[u8]) -> bool {
        let is_answer =
            matches!(self.0, State::Asked) && message.first() == Some(&frontend::PASSWORD);
        if is_answer {
            self.0 = State::Over;
        }
        is_answer
    }

    /// Takes note of an AuthenticationRequest.
    pub(super) fn check(&mut self, body: &[u8]) {
        if matches!(self.0, State::Sent) {
            let kind = body.first_chunk().copied().map(i32::from_be_bytes);
            self.0 = match kind {
                Some(CLEARTEXT) => State::Asked,
                // A server that asks nothing takes the password for a message that breaks the protocol.
                _ => State::Refused,
            };
        }
    }

    /// Returns an error if the server asks for something else than the password.
    pub(super) fn refused(&self) -> Option<io::Error> {
        let refused = matches!(self.0, State::Refused);
        refused.then(|| io::Error::new(io::ErrorKind::InvalidData, OTHER_METHOD))
    }
}

impl fmt::Debug for EarlyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyPassword").finish_non_exhaustive()
    }
}

/// What is wrong with a server behind a WebSocket that asks for something else.
pub(crate) const OTHER_METHOD: &str = "the server asks for another proof than the password, which Neon's proxy does not do over a WebSocket";

/// The kind of the AuthenticationRequest for the password itself.
const CLEARTEXT: i32 = 3;
