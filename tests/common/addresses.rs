//! Loopback addresses that behave as those of a server, working ones and broken ones.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The way in which an address treats its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The address answers no SYN.
    Drops,
    /// The address accepts, and says nothing.
    Silent,
    /// Nothing listens at the address.
    Refuses,
    /// The address forwards to a port on 127.0.0.1.
    LeadsTo(u16),
    /// The address forwards, or is silent while it is told to be.
    Falters(u16),
    /// The address forwards, and the server's bytes arrive in pieces of a few.
    Trickles(u16),
    /// The address forwards, and ends the stream after so many bytes of the server's.
    Ends(u16, usize),
    /// The address refuses the login as a starting server does, with this severity.
    Starting(&'static str),
}

use Behaviour::*;

/// Addresses 127.0.0.1, 127.0.0.2 and so on, with one port.
pub struct Addresses {
    pub port: u16,
    count: usize,
    accepted: Arc<Vec<AtomicUsize>>,
    falter: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    /// Held open, so that nobody else takes the port, and the queues stay full.
    _sockets: Vec<TcpSocket>,
    _listeners: Vec<TcpListener>,
    _queued: Vec<TcpStream>,
}

impl Addresses {
    pub async fn new(behaviours: &[Behaviour]) -> Self {
        let (port, sockets) = loop {
            if let Some(bound) = bind(behaviours.len()) {
                break bound;
            }
        };
        let accepted = behaviours.iter().map(|_| AtomicUsize::new(0)).collect();
        let mut addresses = Self {
            port,
            count: behaviours.len(),
            accepted: Arc::new(accepted),
            falter: Arc::default(),
            tasks: JoinSet::new(),
            _sockets: Vec::new(),
            _listeners: Vec::new(),
            _queued: Vec::new(),
        };
        for (at, (behaviour, socket)) in behaviours.iter().zip(sockets).enumerate() {
            match behaviour {
                Refuses => addresses._sockets.push(socket),
                Silent => addresses._listeners.push(socket.listen(64).unwrap()),
                Drops => addresses.drop_syns(socket).await,
                behaviour => {
                    let listener = socket.listen(64).unwrap();
                    let accepted = Arc::clone(&addresses.accepted);
                    let (behaviour, falter) = (*behaviour, Arc::clone(&addresses.falter));
                    addresses.tasks.spawn(async move {
                        let mut streams = JoinSet::new();
                        while let Ok((stream, _)) = listener.accept().await {
                            accepted[at].fetch_add(1, Ordering::SeqCst);
                            let behaviour = match behaviour {
                                Falters(_) if falter.load(Ordering::SeqCst) => Silent,
                                Falters(port) => LeadsTo(port),
                                behaviour => behaviour,
                            };
                            streams.spawn(serve(stream, behaviour));
                        }
                    });
                }
            }
        }
        addresses
    }

    /// Has those that falter be silent to all that come from now on, or no longer.
    pub fn falter(&self, silent: bool) {
        self.falter.store(silent, Ordering::SeqCst);
    }

    /// Fills the queue of a listener: Linux then answers no SYN.
    async fn drop_syns(&mut self, socket: TcpSocket) {
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        self._listeners.push(listener);
        let moment = Duration::from_millis(100);
        for _ in 0..16 {
            match timeout(moment, TcpStream::connect(address)).await {
                Ok(stream) => self._queued.push(stream.unwrap()),
                Err(_) => return,
            }
        }
        panic!("{address} still answers");
    }

    /// Returns the value of `host=` for one `name` with all these addresses.
    pub fn hosts(&self, name: &str) -> String {
        vec![name; self.count].join(",")
    }

    /// Returns the value of `hostaddr=`.
    pub fn addresses(&self) -> String {
        let address = |at| ip(at).to_string();
        (0..self.count).map(address).collect::<Vec<_>>().join(",")
    }

    /// Returns how many connections each address has accepted; the broken ones count none.
    pub fn accepted(&self) -> Vec<usize> {
        let count = |accepted: &AtomicUsize| accepted.load(Ordering::SeqCst);
        self.accepted.iter().map(count).collect()
    }

    /// Returns the `url` of a server on 127.0.0.1 with these addresses of the host `name` instead.
    pub fn url(&self, url: &str, name: &str) -> String {
        let (front, rest) = url.split_once('@').unwrap();
        let (_, rest) = rest.split_once('/').unwrap();
        let rest = rest.replace("hostaddr=127.0.0.1&", "");
        format!(
            "{front}@/{rest}&host={}&hostaddr={}&port={}",
            self.hosts(name),
            self.addresses(),
            self.port
        )
    }
}

/// Makes attempts until one counts what it should, 20 at most. An address that is silent for a moment is joined by the next, so
/// that a busy machine may ask more of them; what an attempt has counted in less than `moment` is the dialler's own doing.
pub async fn brisk(moment: Duration, expected: &[usize], attempt: impl AsyncFn() -> Vec<usize>) {
    for _ in 0..20 {
        let began = Instant::now();
        let counted = attempt().await;
        if counted == expected {
            return;
        }
        let took = began.elapsed();
        assert!(took >= moment, "{counted:?} within {took:?}");
    }
    panic!("never {expected:?}");
}

fn ip(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(at + 1).unwrap())
}

/// Binds one port that is free on all addresses.
fn bind(count: usize) -> Option<(u16, Vec<TcpSocket>)> {
    let mut port = 0;
    let mut sockets = Vec::new();
    for at in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((ip(at), port))).ok()?;
        port = socket.local_addr().unwrap().port();
        sockets.push(socket);
    }
    Some((port, sockets))
}

async fn serve(mut client: TcpStream, behaviour: Behaviour) {
    // A relay that holds small segments back adds 40 ms to a login.
    client.set_nodelay(true).unwrap();
    let to = async |port| {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        server.set_nodelay(true)?;
        std::io::Result::Ok(server)
    };
    // If one side ends, the other is closed.
    match behaviour {
        LeadsTo(port) => {
            let Ok(mut server) = to(port).await else {
                return;
            };
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        Trickles(port) => {
            let Ok(mut server) = to(port).await else {
                return;
            };
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let trickle = async {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                    for piece in bytes[..read].chunks(8) {
                        to_client.write_all(piece).await?;
                        // The pause makes the client read each piece on its own.
                        sleep(Duration::from_millis(1)).await;
                    }
                }
                std::io::Result::Ok(())
            };
            tokio::select! {
                _ = copy(&mut from_client, &mut to_server) => {}
                _ = trickle => {}
            }
        }
        Ends(port, bytes) => {
            let Ok(mut server) = to(port).await else {
                return;
            };
            let (mut from_client, mut to_client) = client.split();
            let (from_server, mut to_server) = server.split();
            let mut first = from_server.take(bytes as u64);
            tokio::select! {
                _ = copy(&mut from_client, &mut to_server) => {}
                _ = copy(&mut first, &mut to_client) => {}
            }
            // Unread bytes would turn the end of the stream into a reset.
            let _ = to_client.shutdown().await;
            let _ = copy(&mut from_client, &mut tokio::io::sink()).await;
        }
        Starting(severity) => {
            let mut startup = [0; 1024];
            let _ = client.read(&mut startup).await;
            let fields = format!(
                "S{severity}\0V{severity}\0C57P03\0Mthe database system is starting up\0\0"
            );
            let mut message = vec![b'E'];
            message.extend((fields.len() as u32 + 4).to_be_bytes());
            message.extend(fields.into_bytes());
            let _ = client.write_all(&message).await;
        }
        Silent => {
            let _ = copy(&mut client, &mut tokio::io::sink()).await;
        }
        Drops | Refuses | Falters(_) => unreachable!("nobody is accepted"),
    }
}
