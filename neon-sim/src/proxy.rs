//! The proxy: from an accepted socket to a startup packet under TLS.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

use crate::attempt::Attempt;
use crate::backend::Canceller;
use crate::catalog::Catalog;
use crate::compute::Compute;
use crate::counters::Tally;
use crate::faults::{Faults, locked};
use crate::link::{Delay, Link};
use crate::tls::Tls;
use crate::wire::{self, Key, Opening};

const INSECURE: &str = "connection is insecure (try using `sslmode=require`)";
const TLS_HANDSHAKE: u8 = 0x16;

/// What all connections share.
pub(crate) struct Proxy {
    pub(crate) domain: String,
    pub(crate) endpoint: String,
    pub(crate) tls: Tls,
    pub(crate) channel_binding: bool,
    pub(crate) cancel_delay: Duration,
    pub(crate) compute: Arc<Compute>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) delay: Delay,
    pub(crate) direct: Arc<Tally>,
    pub(crate) pooled: Arc<Tally>,
    pub(crate) postgres: PathBuf,
    pub(crate) pgbouncer: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) sessions: Mutex<HashMap<Key, (Canceller, Arc<Tally>)>>,
}

impl Proxy {
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            // Too many open files, for one, is over when others are closed.
            let Ok((stream, _)) = listener.accept().await else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            tokio::spawn(Arc::clone(&self).connection(stream));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // What comes of a connection is between it and its client.
        let _ = self.attend(stream).await;
    }

    async fn attend(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut first = [0];
        let direct = stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE;
        let link = Link::new(stream, self.delay.clone());
        let (link, mut flights) = match direct {
            true => (link, 0),
            false => match self.negotiate(link).await? {
                Some(negotiated) => negotiated,
                None => return Ok(()),
            },
        };
        let mut client = self.tls.acceptor.accept(link).await?;
        flights += match (client.get_ref().1.protocol_version(), resumed(&client)) {
            (Some(rustls::ProtocolVersion::TLSv1_2), false) => 2,
            _ => 1,
        };
        let startup = loop {
            match wire::opening(&mut client).await? {
                Opening::Startup(startup) => break startup,
                Opening::Cancel(key) => {
                    self.cancel(key, client.into_inner().0).await;
                    return Ok(());
                }
                Opening::Gss | Opening::Ssl => client.write_all(b"N").await?,
            }
        };
        if let Some(negotiation) = startup.negotiation() {
            client.write_all(&negotiation).await?;
        }
        match Attempt::new(self, client, startup, flights).run().await {
            Some((client, established)) => {
                established.run(client).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Talks in plain text until TLS can start, and counts the round trips; `None` if it cannot.
    async fn negotiate(&self, mut link: Link) -> io::Result<Option<(Link, u64)>> {
        let mut flights = 0;
        loop {
            flights += 1;
            match wire::opening(&mut link).await? {
                Opening::Ssl => {
                    link.write_all(b"S").await?;
                    return Ok(Some((link, flights)));
                }
                Opening::Gss => link.write_all(b"N").await?,
                Opening::Cancel(key) => {
                    self.cancel(key, link).await;
                    return Ok(None);
                }
                Opening::Startup(_) => {
                    let refusal = wire::error("ERROR", "XX000", INSECURE);
                    link.write_all(&refusal).await?;
                    link.shutdown().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// Closes the request's socket at once, and cancels afterwards.
    async fn cancel(&self, key: Key, mut request: Link) {
        let target = locked(&self.sessions).get(&key).cloned();
        if let Some((_, tally)) = &target {
            tally.cancels.add(1);
        }
        // The client may have gone already.
        let _ = request.shutdown().await;
        drop(request);
        if let Some((canceller, _)) = target {
            sleep(self.cancel_delay).await;
            canceller.cancel().await;
        }
    }
}

fn resumed(client: &TlsStream<Link>) -> bool {
    client.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}
