//! The proxy: from an accepted socket to a startup packet under TLS.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use crate::attempt::Attempt;
use crate::backend::Canceller;
use crate::catalog::Catalog;
use crate::compute::Compute;
use crate::counters::Tally;
use crate::faults::{Faults, locked};
use crate::link::{Delay, Link};
use crate::times::Times;
use crate::tls::Tls;
use crate::wire::{self, Key, Opening, Startup};

const INSECURE: &str = "connection is insecure (try using `sslmode=require`)";
const TLS_HANDSHAKE: u8 = 0x16;

/// What all connections share.
pub(crate) struct Proxy {
    pub(crate) domain: String,
    pub(crate) endpoint: String,
    pub(crate) tls: Tls,
    pub(crate) channel_binding: bool,
    pub(crate) times: Times,
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
        // Whoever takes longer is just closed.
        let opened = timeout(self.times.handshake, self.open(stream)).await??;
        let (mut client, startup, flights) = match opened {
            Opened::Startup(client, startup, flights) => (*client, startup, flights),
            Opened::Cancel(key, link) => {
                self.cancel(key, link).await;
                return Ok(());
            }
            Opened::Refused => return Ok(()),
        };
        if let Some(negotiation) = startup.negotiation() {
            client.write_all(&negotiation).await?;
        }
        if let Some((client, established)) =
            Attempt::new(self, client, startup, flights).run().await
        {
            established.run(client).await;
        }
        Ok(())
    }

    /// Goes as far as the startup packet.
    async fn open(&self, stream: TcpStream) -> io::Result<Opened> {
        let mut first = [0];
        let direct = stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE;
        let mut link = Link::new(stream, self.delay.clone());
        let mut flights = 0;
        if !direct {
            loop {
                flights += 1;
                match wire::opening(&mut link).await? {
                    Opening::Ssl => {
                        link.write_all(b"S").await?;
                        break;
                    }
                    Opening::Gss => link.write_all(b"N").await?,
                    Opening::Cancel(key) => return Ok(Opened::Cancel(key, link)),
                    Opening::Startup(_) => {
                        link.write_all(&wire::error(INSECURE)).await?;
                        link.shutdown().await?;
                        return Ok(Opened::Refused);
                    }
                }
            }
        }
        let mut client = self.tls.accept(link).await?;
        flights += match (client.get_ref().1.protocol_version(), resumed(&client)) {
            (Some(rustls::ProtocolVersion::TLSv1_2), false) => 2,
            _ => 1,
        };
        loop {
            match wire::opening(&mut client).await? {
                Opening::Startup(startup) => {
                    return Ok(Opened::Startup(Box::new(client), startup, flights));
                }
                Opening::Cancel(key) => return Ok(Opened::Cancel(key, client.into_inner().0)),
                Opening::Gss | Opening::Ssl => client.write_all(b"N").await?,
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
            sleep(self.times.cancel_delay).await;
            canceller.cancel().await;
        }
    }
}

/// What a client has opened its connection for.
enum Opened {
    /// A session, after so many round trips.
    Startup(Box<TlsStream<Link>>, Startup, u64),
    Cancel(Key, Link),
    /// The client has been told.
    Refused,
}

fn resumed(client: &TlsStream<Link>) -> bool {
    client.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}
