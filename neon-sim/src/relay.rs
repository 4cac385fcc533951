//! An established session: bytes go both ways unchanged, and are watched.

use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, copy, sink, split,
};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::compute::{End, Membership};
use crate::event::Suspension;
use crate::link::Link;
use crate::session::Session;
use crate::wire;

const BUFFER: usize = 32 * 1024;
const FAREWELL: Duration = Duration::from_secs(1);

/// Carries bytes until one side ends the session or the compute is suspended.
pub(crate) async fn relay(
    client: TlsStream<Link>,
    backend: UnixStream,
    session: &Session,
    mut membership: Membership,
) {
    let (mut client_read, mut client_write) = split(client);
    let (mut backend_read, mut backend_write) = backend.into_split();
    let end = tokio::select! {
        () = upstream(&mut client_read, &mut backend_write, session) => {
            // PgBouncer has forgotten the key of a client that is gone: there the statement goes on.
            let reachable = session.canceller.as_ref().filter(|_| !session.pooled);
            if session.is_running() && let Some(canceller) = reachable {
                canceller.cancel().await;
            }
            return;
        }
        () = downstream(&mut backend_read, &mut client_write, session) => None,
        end = membership.end() => Some(end),
    };
    drop((backend_read, backend_write));
    match end {
        None => {
            // The client may have gone as well.
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
        session.sent_by_client(&buffer[..length]);
        if backend.write_all(&buffer[..length]).await.is_err() {
            // What the backend still has to say comes the other way.
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
        session.sent_by_server(&buffer[..length]);
        let written = client.write_all(&buffer[..length]).await;
        if written.is_err() || client.flush().await.is_err() {
            // That the client has gone is noticed where it is read from.
            return std::future::pending().await;
        }
        session.delivered();
    }
}

async fn suspended(
    mut read: ReadHalf<TlsStream<Link>>,
    mut write: WriteHalf<TlsStream<Link>>,
    session: &Session,
    end: End,
) {
    match end.suspension {
        Suspension::Normal => {
            let farewell = async {
                if !session.pooled && session.between_messages() {
                    write.write_all(&wire::shutdown()).await?;
                }
                write.shutdown().await
            };
            // The client may not be listening.
            let _ = timeout(FAREWELL, farewell).await;
        }
        Suspension::Reset => read.unsplit(write).into_inner().0.reset(),
        Suspension::Silent => {
            session.forget();
            drop(end);
            // Until the client gives up.
            let _ = copy(&mut read, &mut sink()).await;
        }
    }
}
