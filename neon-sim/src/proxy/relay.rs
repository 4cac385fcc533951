//! Carries an established session's bytes in both directions unchanged, and watches them.

use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, copy, sink, split,
};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::session::Session;
use super::wire::Wire;
use crate::control::compute::{EndOrder, Membership};
use crate::control::event::Suspension;
use crate::control::faults::Direction;
use crate::protocol::message::admin_shutdown;

const BUFFER: usize = 32 * 1024;
const FAREWELL: Duration = Duration::from_secs(1);

/// Carries bytes until one side ends the session or the compute is suspended.
pub(super) async fn relay<W: Wire>(
    client: W,
    backend: UnixStream,
    session: &Session,
    mut membership: Membership,
) {
    let (mut client_read, mut client_write) = split(client);
    let (mut backend_read, mut backend_write) = backend.into_split();
    let end = tokio::select! {
        () = upstream(&mut client_read, &mut backend_write, session) => {
            // PgBouncer has forgotten the key of a client that has left: its statement goes on.
            let reachable = session.canceller.as_ref().filter(|_| !session.pooled);
            if session.is_running() && let Some(canceller) = reachable {
                canceller.cancel().await;
            }
            return;
        }
        () = downstream(&mut backend_read, &mut client_write, session) => None,
        end = membership.until_suspended() => Some(end),
    };
    drop((backend_read, backend_write));
    match end {
        None => {
            // The client may have left as well.
            let _ = timeout(FAREWELL, client_write.shutdown()).await;
        }
        Some(end) => suspended(client_read, client_write, session, end).await,
    }
}

async fn upstream(
    client: &mut (impl AsyncRead + Unpin),
    backend: &mut (impl AsyncWrite + Unpin),
    session: &Session,
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        if session.loses(Direction::ToServer) {
            continue;
        }
        session.sent_by_client(&buffer[..length]);
        if backend.write_all(&buffer[..length]).await.is_err() {
            // The backend's last words come the other way.
            return std::future::pending().await;
        }
    }
}

async fn downstream(
    backend: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
    session: &Session,
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = backend.read(&mut buffer).await {
        if session.loses(Direction::ToClient) {
            continue;
        }
        session.sent_by_server(&buffer[..length]);
        let written = client.write_all(&buffer[..length]).await;
        if written.is_err() || client.flush().await.is_err() {
            // `upstream` notices that the client has left.
            return std::future::pending().await;
        }
        session.delivered();
    }
    if session.loses(Direction::ToClient) {
        // The end of the stream is lost too.
        std::future::pending().await
    }
}

async fn suspended<W: Wire>(
    mut read: ReadHalf<W>,
    mut write: WriteHalf<W>,
    session: &Session,
    end: EndOrder,
) {
    match end.suspension {
        Suspension::Normal => {
            let farewell = async {
                if !session.pooled && session.between_messages() {
                    write.write_all(&admin_shutdown()).await?;
                }
                write.shutdown().await
            };
            // The client may not be reading.
            let _ = timeout(FAREWELL, farewell).await;
        }
        Suspension::Reset => read.unsplit(write).into_link().reset(),
        Suspension::Silent => {
            session.let_sleep();
            drop(end);
            // Reads until the client gives up.
            let _ = copy(&mut read, &mut sink()).await;
        }
    }
}
