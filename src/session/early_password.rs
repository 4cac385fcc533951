//! [`EarlyPassword`]: the password that leaves together with the startup message.

use std::io;

#[cfg(feature = "websocket")]
use crate::protocol::Messages;
use crate::protocol::tag::frontend;
use crate::transport::Transport;

/// The password of a login over a WebSocket, where Neon's proxy asks for the password itself whatever happens: to wait for
/// its question would cost a flight.
#[derive(Default)]
pub(crate) struct EarlyPassword {
    due: Option<Vec<u8>>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// tokio-postgres answers the server by itself.
    #[default]
    Absent,
    /// The password was sent; tokio-postgres does not know.
    Sent,
    /// The server asks for something else.
    Refused,
}

impl EarlyPassword {
    pub(crate) fn new(password: Option<&[u8]>) -> Self {
        Self {
            due: password.map(<[u8]>::to_vec),
            state: State::Absent,
        }
    }

    /// Sends the password behind the startup message that was just written, if the stream is one for it.
    pub(super) fn send(&mut self, transport: &mut Transport) -> io::Result<()> {
        let Some(password) = self.due.take() else {
            return Ok(());
        };
        #[cfg(feature = "websocket")]
        {
            let mut message = Messages::default();
            message.password(&password);
            if transport.push_password(message.as_bytes())? {
                self.state = State::Sent;
            }
        }
        #[cfg(not(feature = "websocket"))]
        let _ = (transport, password);
        Ok(())
    }

    /// Returns whether `message` is tokio-postgres's own answer to the question for the password, which was sent before.
    pub(super) fn is_sent(&self, message: &[u8]) -> bool {
        self.state == State::Sent && message.first() == Some(&frontend::PASSWORD)
    }

    /// Takes note of an AuthenticationRequest.
    pub(super) fn check(&mut self, body: &[u8]) {
        let kind = body.first_chunk().copied().map(i32::from_be_bytes);
        if self.state == State::Sent && !matches!(kind, Some(OK | CLEARTEXT)) {
            self.state = State::Refused;
        }
    }

    /// Returns an error if the server asks for something else than the password.
    pub(super) fn refused(&self) -> Option<io::Error> {
        let refused = self.state == State::Refused;
        refused.then(|| io::Error::new(io::ErrorKind::InvalidData, OTHER_METHOD))
    }
}

impl std::fmt::Debug for EarlyPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EarlyPassword").field(&self.state).finish()
    }
}

/// What is wrong with a server behind a WebSocket that asks for something else.
pub(crate) const OTHER_METHOD: &str = "the server asks for another proof than the password, which Neon's proxy does not do over a WebSocket";

// The kinds of AuthenticationRequest.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
