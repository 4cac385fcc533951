//! From an accepted socket to a startup packet under TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::link::Link;
use super::login::log_in;
use super::shared::Shared;
use crate::protocol::message::proxy_error;
use crate::protocol::startup::{CancelKey, FirstPacket, Startup};
use crate::protocol::tag;

const INSECURE: &str = "connection is insecure (try using `sslmode=require`)";
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves every client that connects.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        // Too many open files, for one, is over when others are closed.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // An error here is a client that has left, or is closed for what it sent.
            let _ = attend(&shared, stream).await;
        });
    }
}

async fn attend(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A client that takes longer is closed without a word.
    let opened = timeout(shared.timing.handshake, open(shared, stream)).await??;
    let (mut client, startup, flights) = match opened {
        Opened::Startup(client, startup, flights) => (*client, startup, flights),
        Opened::CancelRequest(key, link) => {
            cancel(shared, key, link).await;
            return Ok(());
        }
        Opened::Refused => return Ok(()),
    };
    if let Some(negotiation) = startup.negotiation() {
        client.write_all(&negotiation).await?;
    }
    if let Some(established) = log_in(shared, client, &startup, flights).await {
        established.run().await;
    }
    Ok(())
}

/// Reads up to the startup packet.
async fn open(shared: &Shared, stream: TcpStream) -> io::Result<Opened> {
    let mut first = [0];
    let is_tls = stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE;
    let mut link = Link::new(stream, shared.latency.clone());
    let mut flights = 0;
    if !is_tls {
        loop {
            flights += 1;
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
    let mut client = shared.tls.accept(link).await?;
    flights += match (client.get_ref().1.protocol_version(), is_resumed(&client)) {
        (Some(rustls::ProtocolVersion::TLSv1_2), false) => 2,
        _ => 1,
    };
    loop {
        match FirstPacket::read(&mut client).await? {
            FirstPacket::Startup(startup) => {
                return Ok(Opened::Startup(Box::new(client), startup, flights));
            }
            FirstPacket::CancelRequest(key) => {
                return Ok(Opened::CancelRequest(key, client.into_inner().0));
            }
            FirstPacket::GssRequest | FirstPacket::SslRequest => {
                client.write_all(&[tag::NOT_ENCRYPTED]).await?;
            }
        }
    }
}

/// Closes the request's socket at once, and cancels afterwards.
async fn cancel(shared: &Shared, key: CancelKey, mut request: Link) {
    let target = shared.cancellable.find(key);
    if let Some((_, tally)) = &target {
        tally.cancels.add(1);
    }
    // The client may have left.
    let _ = request.shutdown().await;
    drop(request);
    if let Some((canceller, _)) = target {
        sleep(shared.timing.cancel_delay).await;
        canceller.cancel().await;
    }
}

/// What a client has connected for.
enum Opened {
    /// A session, after so many round trips.
    Startup(Box<TlsStream<Link>>, Startup, u64),
    CancelRequest(CancelKey, Link),
    /// The client has been told why not.
    Refused,
}

fn is_resumed(client: &TlsStream<Link>) -> bool {
    client.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}
