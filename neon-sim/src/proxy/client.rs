//! A client that is logging in.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, copy, sink};

use super::door::Door;
use super::wire::Wire;
use crate::control::counters::Tally;
use crate::protocol::message::{proxy_error, read};
use crate::protocol::scram::VIOLATION;
use crate::protocol::tag::frontend;

/// How many bytes a client may send at a time before it has logged in.
const LONGEST: u32 = 512;

/// A client whose session is not established yet.
pub(super) struct Client<W> {
    stream: W,
    door: Door,
    /// Messages for the next write.
    unsent: Vec<u8>,
}

impl<W: Wire> Client<W> {
    pub(super) fn new(stream: W, door: Door) -> Self {
        Self {
            stream,
            door,
            unsent: Vec::new(),
        }
    }

    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Counts the attempt and its round trips at an endpoint, from now on.
    pub(super) fn count_at(&mut self, tally: &Arc<Tally>) {
        tally.attempts.add(1);
        let turns = self.stream.link().turns();
        turns.count_as(tally, |tally| &tally.handshake_flights);
    }

    /// Counts round trips as the session's, from now on.
    pub(super) fn count_as_session(&mut self, tally: &Arc<Tally>) {
        let turns = self.stream.link().turns();
        turns.count_as(tally, |tally| &tally.flights);
    }

    /// Keeps a message for the next write.
    pub(super) fn queue(&mut self, message: impl AsRef<[u8]>) {
        self.unsent.extend(message.as_ref());
    }

    /// Sends what was queued, and this message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.unsent.extend(message);
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        self.stream.flush().await
    }

    /// Reads a PasswordMessage or one of SASL.
    pub(super) async fn read_password(&mut self) -> Result<Vec<u8>, Failure> {
        match read(&mut self.stream, LONGEST).await {
            Ok((frontend::PASSWORD, body)) => Ok(body),
            Ok(_) => Err(VIOLATION.into()),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(Failure::Io),
            Err(_) => Err(self.door.too_long().into()),
        }
    }

    /// Never answers again, and waits until the client gives up.
    pub(super) async fn hang(&mut self) {
        // Either way, the client has left.
        let _ = copy(&mut self.stream, &mut sink()).await;
    }

    /// Tells the client why it is refused, and closes without the farewells of TLS and WebSocket.
    pub(super) async fn refuse(mut self, text: &str) {
        // The client may have left.
        if self.send(&proxy_error(text)).await.is_ok() {
            let _ = self.stream.link().shutdown().await;
        }
    }

    pub(super) fn into_stream(self) -> W {
        self.stream
    }
}

/// Why a connection has not become a session.
pub(super) enum Failure {
    /// The client has left.
    Io,
    /// The client is refused with this text.
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Refused(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::Refused(text.into())
    }
}
