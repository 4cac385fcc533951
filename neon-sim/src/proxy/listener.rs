//! PostgreSQL's port: from an accepted socket to a client under TLS.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::accept::accept;
use super::attend::{Purpose, attend, cancel, purpose};
use super::door::Door;
use super::link::Link;
use super::shared::Shared;
use crate::protocol::message::proxy_error;
use crate::protocol::startup::{CancelKey, FirstPacket};
use crate::protocol::tag;

const INSECURE: &str = "connection is insecure (try using `sslmode=require`)";
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves every client that connects to PostgreSQL's port.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    accept(listener, |stream| serve_one(Arc::clone(&shared), stream)).await;
}

async fn serve_one(shared: Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    // A client that takes longer is closed without a word.
    match timeout(shared.timing.handshake, open(&shared, stream)).await?? {
        Opened::Tls(client, purpose) => {
            let name = client.get_ref().1.server_name();
            let door = Door::Tls(name.map(Into::into));
            attend(&shared, *client, door, purpose).await
        }
        Opened::CancelRequest(key, link) => {
            cancel(&shared, key, link).await;
            Ok(())
        }
        Opened::Refused => Ok(()),
    }
}

/// Reads up to the startup packet.
async fn open(shared: &Shared, stream: TcpStream) -> io::Result<Opened> {
    let mut first = [0];
    let is_tls = stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE;
    let mut link = Link::new(stream, shared.latency.clone());
    if !is_tls {
        loop {
            match FirstPacket::read(&mut link).await? {
                FirstPacket::SslRequest => {
                    link.write_all(&[tag::ENCRYPTED]).await?;
                    break;
                }
                FirstPacket::GssRequest => link.write_all(&[tag::NOT_ENCRYPTED]).await?,
                FirstPacket::CancelRequest(key) => return Ok(Opened::CancelRequest(key, link)),
                FirstPacket::Startup(_) => {
                    link.write_all(&proxy_error(INSECURE)).await?;
                    link.shutdown().await?;
                    return Ok(Opened::Refused);
                }
            }
        }
    }
    let mut client = shared.tls.accept_postgres(link).await?;
    let purpose = purpose(&mut client).await?;
    Ok(Opened::Tls(Box::new(client), purpose))
}

/// A client that has said what it has connected for.
enum Opened {
    Tls(Box<TlsStream<Link>>, Purpose),
    /// In plain text, as libpq sends it.
    CancelRequest(CancelKey, Link),
    /// The client has been told why not.
    Refused,
}
