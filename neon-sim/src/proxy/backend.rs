//! A connection to one of the servers behind the proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::backoff::pauses;
use crate::protocol::message::{self, error_message, message};
use crate::protocol::startup::{CancelKey, startup};
use crate::protocol::tag::{authentication, backend};

const UNREACHABLE: &str = "Couldn't connect to compute node";
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// A session with a server that waits for its first query.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) stream: UnixStream,
    /// The ParameterStatus and NoticeResponse messages for the client.
    pub(crate) greeting: Vec<u8>,
    pub(crate) key: Option<CancelKey>,
}

impl Backend {
    /// Opens a session, and tries for `patience` while nobody listens.
    pub(crate) async fn open(
        socket: &Path,
        parameters: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Self, Refusal> {
        const CLOSED: Refusal = Refusal::Proxy("connection closed");
        let reached = reach(socket, patience).await;
        let mut stream = reached.ok_or(Refusal::Proxy(UNREACHABLE))?;
        let startup = startup(parameters);
        stream.write_all(&startup).await.map_err(|_| CLOSED)?;
        let (mut greeting, mut key) = (Vec::new(), None);
        loop {
            let (tag, body) = message::read(&mut stream, message::LIMIT)
                .await
                .map_err(|_| CLOSED)?;
            match (tag, &body[..]) {
                (backend::NOTICE_RESPONSE | backend::PARAMETER_STATUS, _) => {
                    greeting.extend(message(tag, &body));
                }
                (backend::BACKEND_KEY_DATA, &[a, b, c, d, e, f, g, h]) => {
                    key = Some(CancelKey {
                        process: [a, b, c, d],
                        secret: [e, f, g, h],
                    });
                }
                (backend::READY_FOR_QUERY, _) => break,
                (backend::ERROR_RESPONSE, _) => return Err(Refusal::Server(body)),
                // The socket is private, so there is nothing to authenticate.
                (backend::AUTHENTICATION, kind) if kind == authentication::OK.to_be_bytes() => {}
                _ => return Err(CLOSED),
            }
        }
        Ok(Self {
            stream,
            greeting,
            key,
        })
    }
}

/// Why a server has given no session.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The words of the proxy.
    Proxy(&'static str),
    /// The server's own ErrorResponse.
    Server(Vec<u8>),
}

impl Refusal {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Proxy(text) => (*text).to_owned(),
            Self::Server(body) => error_message(body),
        }
    }
}

/// Connects, at the first try or within `patience`.
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

/// Cancels the statement under way of one session.
#[derive(Clone, Debug)]
pub(crate) struct Canceller {
    pub(crate) socket: PathBuf,
    pub(crate) key: CancelKey,
}

impl Canceller {
    pub(crate) async fn cancel(&self) {
        let request = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(&self.key.request()).await?;
            // Old PgBouncers crash if the connection is closed before they have passed the request on.
            stream.read_u8().await
        };
        // A cancel request never has an answer.
        let _ = timeout(CANCEL_PATIENCE, request).await;
    }
}
