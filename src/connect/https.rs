//! [`HttpsConnector`]: opens streams for HTTP.

use std::time::Duration;

use super::error::ConnectError;
use super::failure::Failure;
use super::once;
use super::weightiest::WeightiestFailure;
use crate::transport::{Dialler, HttpStream, Timer, TlsError, Transport};
use crate::url::DatabaseUrl;

/// Opens streams for HTTP to the hosts of one URL.
#[derive(Debug)]
pub(crate) struct HttpsConnector(Dialler);

impl HttpsConnector {
    /// Prepares to connect within `budget`.
    pub(crate) fn new(url: &DatabaseUrl, budget: Duration, timer: Timer) -> Result<Self, TlsError> {
        Dialler::for_http(url, budget, timer).map(Self)
    }

    /// Returns the time for a connect, and for the retries of what has not run.
    pub(crate) fn budget(&self) -> Duration {
        self.0.budget()
    }

    /// Returns the timer that bounds the waits.
    pub(crate) fn timer(&self) -> Timer {
        self.0.timer()
    }

    /// Opens a stream; returns it with the name of its host.
    pub(crate) async fn connect(&self) -> Result<(HttpStream, String), ConnectError> {
        let failures = WeightiestFailure::default();
        let opened = self.0.dial(
            |transport, peer, _| async move {
                match transport {
                    Transport::Http(stream) => Ok((stream, peer.name().to_owned())),
                    _ => Err(Failure::no_web_server(peer.name())),
                }
            },
            |failure: &Failure| failures.note(failure),
        );
        once(&self.0, opened, || failures.take()).await
    }
}
