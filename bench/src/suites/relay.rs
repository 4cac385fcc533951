//! A relay between a client and a server that counts the client's flights.
//!
//! Only those that the client waits for: what it sends beside them, such as an acknowledgement of settings, costs it nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// Leads to a port. A flight is bytes of the client behind bytes of the server, or at the beginning of a connection.
pub struct Relay {
    port: u16,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    /// Flights of all connections.
    flights: AtomicU64,
    /// How many of them the server may have known of when it sent what the client has received last.
    answered: AtomicU64,
}

impl Relay {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self {
            port,
            counts,
            accepting,
        }
    }

    /// Returns the URL by way of this relay; `server` is the port that it had.
    pub fn instead_of(&self, server: u16, url: &str) -> String {
        let port = self.port;
        url.replace(&format!(":{server}/"), &format!(":{port}/"))
            .replace(
                &format!("https_port={server}"),
                &format!("https_port={port}"),
            )
    }

    /// Runs what a client does, and returns how many flights it had to wait for, with what it returned.
    pub async fn count<T>(&self, work: impl Future<Output = T>) -> (f64, T) {
        // Until what nobody waits for has been sent and answered.
        sleep(HELD * 3).await;
        let before = self.counts.flights.load(Ordering::Relaxed);
        let returned = work.await;
        let answered = self.counts.answered.load(Ordering::Relaxed);
        (answered.saturating_sub(before) as f64, returned)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, server: u16, counts: Arc<Counts>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let is_turn = AtomicBool::new(true);
    let up = up(from_client, to_server, &is_turn, &counts);
    let down = down(from_server, to_client, &is_turn, &counts);
    // If one way fails, nothing need go the other.
    tokio::try_join!(up, down).map(drop)
}

async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    is_turn: &AtomicBool,
    counts: &Counts,
) -> io::Result<()> {
    let mut bytes = vec![0; PIECE];
    loop {
        let length = client.read(&mut bytes).await?;
        if length == 0 {
            return server.shutdown().await;
        }
        if is_turn.swap(false, Ordering::Relaxed) {
            counts.flights.fetch_add(1, Ordering::Relaxed);
        }
        server.write_all(&bytes[..length]).await?;
    }
}

/// Holds what the server sends, as a long way would: what the client sends meanwhile does not depend on it.
async fn down(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    is_turn: &AtomicBool,
    counts: &Counts,
) -> io::Result<()> {
    let (sender, mut held) = mpsc::unbounded_channel::<Held>();
    let read = async move {
        let mut bytes = vec![0; PIECE];
        loop {
            let length = server.read(&mut bytes).await?;
            let sent = sender.send(Held {
                due: Instant::now() + HELD,
                bytes: bytes[..length].to_vec(),
                flights: counts.flights.load(Ordering::Relaxed),
            });
            if length == 0 || sent.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let write = async {
        while let Some(held) = held.recv().await {
            sleep_until(held.due).await;
            if held.bytes.is_empty() {
                return client.shutdown().await;
            }
            is_turn.store(true, Ordering::Relaxed);
            counts.answered.store(held.flights, Ordering::Relaxed);
            client.write_all(&held.bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

/// What a server has sent, and after how many flights.
struct Held {
    due: Instant,
    bytes: Vec<u8>,
    flights: u64,
}

const PIECE: usize = 64 * 1024;
/// Longer than a client needs that has a processor to itself only most of the time.
const HELD: Duration = Duration::from_millis(40);
