//! A connection to one of the servers behind the proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::backoff::pauses;
use crate::wire::{self, Key};

const UNREACHABLE: &str = "Couldn't connect to compute node";
const CLOSED: &str = "connection closed";
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// A session with a server that waits for its first query.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) stream: UnixStream,
    /// The parameters and notices that the client should see.
    pub(crate) greeting: Vec<u8>,
    pub(crate) key: Option<Key>,
}

impl Backend {
    /// Opens a session, with so much patience where nobody listens; errors are texts for the client.
    pub(crate) async fn open(
        socket: &Path,
        parameters: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Self, String> {
        let mut stream = reach(socket, patience).await.ok_or(UNREACHABLE)?;
        let startup = wire::startup(parameters);
        stream.write_all(&startup).await.map_err(|_| CLOSED)?;
        let (mut greeting, mut key) = (Vec::new(), None);
        loop {
            let (tag, body) = wire::read(&mut stream, wire::LIMIT)
                .await
                .map_err(|_| CLOSED)?;
            match (tag, &body[..]) {
                (b'N' | b'S', _) => greeting.extend(wire::message(tag, &body)),
                (b'K', &[a, b, c, d, e, f, g, h]) => {
                    key = Some(Key {
                        process: [a, b, c, d],
                        secret: [e, f, g, h],
                    });
                }
                (b'Z', _) => break,
                (b'E', _) => return Err(wire::error_text(&body)),
                // The socket is private, so there is nothing to authenticate.
                (b'R', [0, 0, 0, 0]) => {}
                _ => return Err(CLOSED.into()),
            }
        }
        Ok(Self {
            stream,
            greeting,
            key,
        })
    }
}

/// Tries at least once.
async fn reach(socket: &Path, patience: Duration) -> Option<UnixStream> {
    if let Ok(stream) = UnixStream::connect(socket).await {
        return Some(stream);
    }
    let trying = async {
        for pause in pauses() {
            sleep(pause).await;
            if let Ok(stream) = UnixStream::connect(socket).await {
                return Some(stream);
            }
        }
        None
    };
    timeout(patience, trying).await.ok()?
}

/// Cancels what one session is doing.
#[derive(Clone, Debug)]
pub(crate) struct Canceller {
    pub(crate) socket: PathBuf,
    pub(crate) key: Key,
}

impl Canceller {
    pub(crate) async fn cancel(&self) {
        let request = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(&wire::cancel_request(self.key)).await?;
            // Old PgBouncers crash if the connection is closed before they have passed it on.
            stream.read_u8().await
        };
        // A cancel request never has an answer.
        let _ = timeout(CANCEL_PATIENCE, request).await;
    }
}
