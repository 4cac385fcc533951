//! A client that is logging in.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, copy, sink};
use tokio_rustls::server::TlsStream;

use super::link::Link;
use crate::control::counters::Tally;
use crate::protocol::message::{proxy_error, read};
use crate::protocol::scram::VIOLATION;
use crate::protocol::tag::frontend;

/// How many bytes a client may send at a time before it has logged in.
const LONGEST: u32 = 512;

/// A client under TLS whose session is not established yet.
pub(super) struct Client {
    stream: TlsStream<Link>,
    /// How many round trips the client has waited for, and are not counted yet.
    flights: u64,
    /// Messages for the next write.
    unsent: Vec<u8>,
    /// The counters of the endpoint that the client asks for, as soon as it is known.
    tally: Option<Arc<Tally>>,
}

impl Client {
    /// Returns a client that has waited for `flights` round trips so far.
    pub(super) fn new(stream: TlsStream<Link>, flights: u64) -> Self {
        Self {
            stream,
            flights,
            unsent: Vec::new(),
            tally: None,
        }
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.stream.get_ref().1.server_name()
    }

    /// Counts the attempt and its round trips at an endpoint, from now on.
    pub(super) fn count_at(&mut self, tally: &Arc<Tally>) {
        tally.attempts.add(1);
        self.tally = Some(Arc::clone(tally));
    }

    pub(super) fn add_flight(&mut self) {
        self.flights += 1;
    }

    pub(super) fn count_flights(&mut self) {
        if let Some(tally) = &self.tally {
            let flights = std::mem::take(&mut self.flights);
            tally.handshake_flights.add(flights);
        }
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
        self.flights += 1;
        match read(&mut self.stream, LONGEST).await {
            Ok((frontend::PASSWORD, body)) => Ok(body),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(Failure::Io),
            _ => Err(VIOLATION.into()),
        }
    }

    /// Never answers again, and waits until the client gives up.
    pub(super) async fn hang(&mut self) {
        // Either way, the client has left.
        let _ = copy(&mut self.stream, &mut sink()).await;
    }

    /// Tells the client why it is refused, and closes without TLS's close_notify.
    pub(super) async fn refuse(mut self, text: &str) {
        // The client may have left.
        if self.send(&proxy_error(text)).await.is_ok() {
            let _ = self.stream.get_mut().0.shutdown().await;
        }
    }

    pub(super) fn into_stream(self) -> TlsStream<Link> {
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
