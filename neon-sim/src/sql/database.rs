//! The sessions that requests run in, kept for the next.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use crate::protocol::message::{self, message};
use crate::protocol::tag::{backend, frontend};
use crate::proxy::backend::{Backend, Canceller};
use crate::sync::locked;

/// How many sessions there may be at a time; PostgreSQL has 100 places, most for others.
const SESSIONS: usize = 20;

/// What a session belongs to: the server's socket, the role and the database.
pub(super) type Owner = (PathBuf, String, String);

/// The sessions of all requests.
#[derive(Debug)]
pub(super) struct Sessions {
    places: Arc<Semaphore>,
    idle: Arc<Mutex<HashMap<Owner, Vec<Live>>>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(SESSIONS)),
            idle: Arc::default(),
        }
    }
}

impl Sessions {
    /// Returns a session in which nothing is left of an earlier request.
    pub(super) async fn take(&self, owner: Owner, patience: Duration) -> Result<Session, Failure> {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await;
        let place = place.map_err(|_| Failure::new(500, "connection closed"))?;
        let session = |live| Session {
            live: Some(live),
            owner: owner.clone(),
            idle: Arc::clone(&self.idle),
            is_settled: true,
            _place: place,
        };
        // The server may have ended it meanwhile.
        let kept = || locked(&self.idle).get_mut(&owner).and_then(Vec::pop);
        while let Some(mut live) = kept() {
            if live
                .simple("DISCARD ALL")
                .await
                .is_ok_and(|end| end.is_ok())
            {
                return Ok(session(live));
            }
        }
        let (socket, user, database) = &owner;
        let parameters = [
            ("user", &**user),
            ("database", &**database),
            ("client_encoding", "UTF8"),
        ];
        let opened = Backend::open(socket, &parameters, patience).await?;
        Ok(session(Live {
            stream: BufReader::new(opened.stream),
            canceller: opened.key.map(|key| Canceller {
                socket: socket.clone(),
                key,
            }),
        }))
    }
}

/// A session with a server.
#[derive(Debug)]
struct Live {
    stream: BufReader<UnixStream>,
    canceller: Option<Canceller>,
}

/// Whether the server is outside of a transaction again, or the ErrorResponse.
type End = Result<bool, Vec<u8>>;

impl Live {
    async fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.stream.write_all(messages).await
    }

    async fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        message::read(&mut self.stream, u32::MAX).await
    }

    /// Runs a statement without a result.
    async fn simple(&mut self, sql: &str) -> io::Result<End> {
        let body = [sql.as_bytes(), b"\0"].concat();
        self.send(&message(frontend::QUERY, &body)).await?;
        let mut error = None;
        loop {
            match self.read().await? {
                (backend::ERROR_RESPONSE, body) => error = Some(body),
                (backend::READY_FOR_QUERY, body) => {
                    return Ok(error.map_or(Ok(body == [backend::IDLE]), Err));
                }
                _ => {}
            }
        }
    }
}

/// A session of one request, which cancels what is under way when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    live: Option<Live>,
    owner: Owner,
    idle: Arc<Mutex<HashMap<Owner, Vec<Live>>>>,
    /// Whether the server waits for a statement, outside of a transaction.
    is_settled: bool,
    _place: OwnedSemaphorePermit,
}

impl Session {
    pub(super) async fn send(&mut self, messages: &[u8]) -> Result<(), Failure> {
        self.is_settled = false;
        self.live()?.send(messages).await.map_err(closed)
    }

    /// Reads the next message; a ReadyForQuery settles the session.
    pub(super) async fn read(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        let (tag, body) = self.live()?.read().await.map_err(closed)?;
        self.is_settled = tag == backend::READY_FOR_QUERY && body == [backend::IDLE];
        Ok((tag, body))
    }

    /// Runs a statement without a result.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<(), Failure> {
        self.is_settled = false;
        let end = self.live()?.simple(sql).await.map_err(closed)?;
        self.is_settled = end.map_err(Failure::told)?;
        Ok(())
    }

    fn live(&mut self) -> Result<&mut Live, Failure> {
        self.live
            .as_mut()
            .ok_or_else(|| closed(io::ErrorKind::NotConnected.into()))
    }
}

fn closed(_: io::Error) -> Failure {
    Failure::bad("connection closed")
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else {
            return;
        };
        if self.is_settled {
            let mut idle = locked(&self.idle);
            idle.entry(self.owner.clone()).or_default().push(live);
            return;
        }
        tokio::spawn(async move {
            if let Some(canceller) = &live.canceller {
                canceller.cancel().await;
            }
            // A pooler forgets the key of a session that has gone.
            drop(live);
        });
    }
}
