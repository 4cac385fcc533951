//! [`Dialler`]: opens a stream to the first server of a URL that is ready.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_postgres::config::LoadBalanceHosts;

use super::Transport;
use super::address::{Address, Listener, Peer};
#[cfg(any(feature = "http", feature = "websocket"))]
use super::client_config::Alpn;
use super::client_config::{TlsError, verifier};
use super::error::DialError;
#[cfg(any(feature = "http", feature = "websocket"))]
use super::https::Https;
use super::inspect::Inspection;
use super::postponed::PostponedPeers;
use super::race::{AttemptFailure, Pace, Progress, Stage, Verdict, race};
use super::resolve::{resolve, servers};
use super::socket::SocketOptions;
use super::timer::Timer;
use super::tls::Tls;
use super::ways::either;
use crate::url::{DatabaseUrl, Encryption, Host, TransportMode};
use crate::util::lock;

/// The hosts of a URL, and the settings for a stream to each.
#[derive(Debug)]
pub(crate) struct Dialler {
    url: DatabaseUrl,
    servers: Vec<Vec<Host>>,
    shuffled: bool,
    tls: Option<Tls>,
    #[cfg(any(feature = "http", feature = "websocket"))]
    https: Https,
    /// The way that has connected last, and since when it does, if the URL leaves the choice.
    winner: Mutex<Option<(TransportMode, Instant)>>,
    options: SocketOptions,
    budget: Duration,
    /// How long TCP may take for one address.
    tcp_timeout: Duration,
    timer: Timer,
    postponed: PostponedPeers,
    /// Whether streams are for HTTP.
    #[cfg(feature = "http")]
    is_for_http: bool,
}

impl Dialler {
    /// Prepares to dial the hosts of `url`; callers wait for `budget` at most.
    pub(crate) fn new(url: &DatabaseUrl, budget: Duration, timer: Timer) -> Result<Self, TlsError> {
        let config = url.to_tokio_postgres();
        let tls = match url.encryption() {
            Encryption::Tls {
                roots, negotiation, ..
            } => Some(Tls::new(verifier(roots)?, *negotiation)?),
            Encryption::Plain => None,
        };
        Ok(Self {
            url: url.clone(),
            servers: servers(url.hosts()),
            shuffled: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            #[cfg(any(feature = "http", feature = "websocket"))]
            https: Https::new(url, tls.as_ref().map(|tls| Arc::clone(&tls.verifier)))?,
            winner: Mutex::default(),
            tls,
            options: SocketOptions::new(&config),
            budget,
            tcp_timeout: (budget / 3).min(TCP_TIMEOUT),
            timer,
            postponed: PostponedPeers::default(),
            #[cfg(feature = "http")]
            is_for_http: false,
        })
    }

    /// Prepares to dial the hosts of `url` for HTTP, whatever its `transport`.
    #[cfg(feature = "http")]
    pub(crate) fn for_http(
        url: &DatabaseUrl,
        budget: Duration,
        timer: Timer,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            is_for_http: true,
            ..Self::new(url, budget, timer)?
        })
    }

    /// Returns the timer that bounds the waits.
    pub(crate) fn timer(&self) -> Timer {
        self.timer
    }

    /// Returns how long callers wait at most, for one attempt or for several.
    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// Races the addresses of the first server, then those of the next, through `log_in`. The first session
    /// that is ready wins; the other attempts are dropped. Calls `on_failure` with every attempt's failure.
    pub(crate) async fn dial<T, E, F>(
        &self,
        log_in: impl Fn(Transport, Peer, Arc<Progress>) -> F + Sync,
        on_failure: impl Fn(&E) + Sync,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: AttemptFailure + From<DialError>,
    {
        let mut servers: Vec<&[Host]> = self.servers.iter().map(Vec::as_slice).collect();
        if self.shuffled {
            fastrand::shuffle(&mut servers);
        }
        let (log_in, on_failure) = (&log_in, &on_failure);
        let by_way = |server, way, progress: Arc<Progress>| async move {
            let resolved = self.peers(server, way).await.map_err(E::from);
            let mut peers = resolved.inspect_err(on_failure)?;
            self.postponed.move_back(&mut peers);
            let to_peer = |peer: Peer, progress: Arc<Progress>| async move {
                let _silence = SilenceGuard {
                    postponed: &self.postponed,
                    peer: &peer,
                    progress: &progress,
                };
                let transport = self.connect(&peer, &progress).await.map_err(E::from);
                let transport = transport.inspect_err(on_failure)?;
                let logged_in = log_in(transport, peer.clone(), Arc::clone(&progress)).await;
                match &logged_in {
                    Err(error) if error.verdict() == Verdict::Refused => self.postponed.add(&peer),
                    _ => self.postponed.remove(&peer),
                }
                if logged_in.is_ok() {
                    self.note_winner(&peer);
                }
                logged_in.inspect_err(on_failure)
            };
            race(peers, Pace::Addresses, self.timer, &progress, to_peer).await
        };
        let (first, second) = self.ways();
        let to_server = |server, progress: Arc<Progress>| async move {
            let leading = by_way(server, first, Arc::clone(&progress));
            let Some(second) = second else {
                return leading.await;
            };
            let opened = || progress.stage() >= Stage::LoggingIn;
            let other = by_way(server, second, Arc::clone(&progress));
            either(leading, opened, self.timer, other).await
        };
        let pace = Pace::Servers(self.tcp_timeout);
        race(servers, pace, self.timer, &Progress::default(), to_server).await
    }

    /// Returns the way to a server, and the other one if the URL leaves the choice.
    fn ways(&self) -> (TransportMode, Option<TransportMode>) {
        let (tcp, websocket) = (TransportMode::Tcp, TransportMode::WebSocket);
        #[cfg(feature = "http")]
        if self.is_for_http {
            // The same port, and the same proxies.
            return (websocket, None);
        }
        match (self.url.transport(), *lock(&self.winner)) {
            (TransportMode::Auto, Some((winner, since)))
                if winner == websocket && since.elapsed() < REMEMBERED =>
            {
                (websocket, Some(tcp))
            }
            (TransportMode::Auto, _) => (tcp, Some(websocket)),
            (only, _) => (only, None),
        }
    }

    /// Notes that a login over this way has succeeded.
    fn note_winner(&self, peer: &Peer) {
        if self.url.transport() != TransportMode::Auto {
            return;
        }
        let transport = peer.transport();
        let mut winner = lock(&self.winner);
        match &*winner {
            Some((before, since)) if *before == transport && since.elapsed() < REMEMBERED => {}
            _ => *winner = Some((transport, Instant::now())),
        }
        drop(winner);
        tracing::debug!(host = peer.name(), %transport, "this way to the server works");
    }

    /// Returns how bytes reach the server: `Auto` if the URL leaves the choice and nothing has connected yet.
    pub(crate) fn transport(&self) -> TransportMode {
        let winner = lock(&self.winner).map(|(winner, _)| winner);
        winner.unwrap_or(self.url.transport())
    }

    /// Returns the addresses of one server, in the order in which they are tried.
    async fn peers(&self, server: &[Host], way: TransportMode) -> Result<Vec<Peer>, DialError> {
        match way {
            #[cfg(any(feature = "http", feature = "websocket"))]
            TransportMode::WebSocket => self.https.resolve(server, self.shuffled).await,
            _ => resolve(server, self.shuffled).await,
        }
    }

    /// Connects again to a peer that has been reached before.
    pub(crate) async fn redial(&self, peer: &Peer) -> Result<Transport, DialError> {
        self.connect(peer, &Progress::default()).await
    }

    /// Opens a stream to `peer`, and negotiates TLS if the URL asks for it.
    pub(crate) async fn connect(
        &self,
        peer: &Peer,
        progress: &Progress,
    ) -> Result<Transport, DialError> {
        let transport = self.open(peer).await?;
        progress.reach(Stage::Securing);
        let transport = match (transport, &peer.listener, &self.tls) {
            #[cfg(feature = "http")]
            (Transport::Plain(stream), Listener::Https(gateway), _) if self.is_for_http => {
                Transport::Http(self.https.http(stream, peer, gateway).await?)
            }
            #[cfg(feature = "websocket")]
            (Transport::Plain(stream), Listener::Https(gateway), _) => {
                let websocket = self.https.websocket(stream, peer, gateway).await?;
                Transport::WebSocket(Box::new(websocket))
            }
            (Transport::Plain(stream), Listener::Postgres, Some(tls)) => {
                Transport::Tls(Box::new(tls.negotiate(stream, peer).await?))
            }
            (transport, _, _) => transport,
        };
        progress.reach(Stage::LoggingIn);
        Ok(transport)
    }

    /// Returns the addresses of one host, in the order in which they are tried.
    pub(crate) async fn resolve(&self, host: &Host) -> Result<Vec<Peer>, DialError> {
        let (way, _) = self.ways();
        self.peers(std::slice::from_ref(host), way).await
    }

    /// Opens a stream to `peer`, and sends nothing on it.
    pub(crate) async fn open(&self, peer: &Peer) -> Result<Transport, DialError> {
        let failed = |source| DialError::Connect {
            address: peer.address.clone(),
            source,
        };
        match &peer.address {
            Address::Tcp(address) => {
                // The address decides, not the name: `localhost` may resolve to any address.
                if let Err(source) = self.url.check_address(address.ip()) {
                    let name = peer.name.clone();
                    return Err(DialError::Forbidden { name, source });
                }
                let stream = self.bounded(TcpStream::connect(address)).await;
                let stream = stream.map_err(|source| match &peer.listener {
                    #[cfg(any(feature = "http", feature = "websocket"))]
                    Listener::Https(gateway) => gateway.unreached(&peer.name, failed(source)),
                    Listener::Postgres => failed(source),
                })?;
                self.options.set(&stream).map_err(failed)?;
                Ok(Transport::Plain(stream))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = self.bounded(tokio::net::UnixStream::connect(path)).await;
                Ok(Transport::Unix(stream.map_err(failed)?))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(failed(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Makes a TLS handshake with `peer` to see the server's certificates. Returns `None` if the URL means
    /// plain text.
    pub(crate) async fn inspect(&self, peer: &Peer) -> Option<Inspection> {
        let tls = self.tls.as_ref()?;
        Some(match (self.open(peer).await, &peer.listener) {
            #[cfg(any(feature = "http", feature = "websocket"))]
            (Ok(Transport::Plain(stream)), Listener::Https(gateway)) => {
                match self.https.tunnel(stream, peer, gateway).await {
                    Ok(below) => tls.inspect_handshake(below, peer, Alpn::Http).await,
                    Err(error) => Inspection::failed(error),
                }
            }
            (Ok(Transport::Plain(stream)), Listener::Postgres) => tls.inspect(stream, peer).await,
            // Postgres speaks no TLS on Unix sockets.
            (Ok(_), _) => return None,
            (Err(error), _) => Inspection::failed(error),
        })
    }

    async fn bounded<T>(&self, connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let connected = self.timer.timeout(self.tcp_timeout, connect).await;
        connected.unwrap_or_else(|| {
            let text = format!("no answer within {:?}", self.tcp_timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }
}

/// Postpones an address whose attempt is dropped because it has been silent for too long.
struct SilenceGuard<'a> {
    postponed: &'a PostponedPeers,
    peer: &'a Peer,
    progress: &'a Progress,
}

impl Drop for SilenceGuard<'_> {
    fn drop(&mut self) {
        if self.progress.is_overdue() {
            self.postponed.add(self.peer);
        }
    }
}

/// How long the WebSocket is tried first once TCP was blocked: a firewall stays, and a machine that moves does not.
const REMEMBERED: Duration = Duration::from_secs(600);

/// TCP to an address that answers takes a round trip, and a few seconds if packets are lost.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::HostName;

    #[tokio::test]
    async fn plain_text_goes_to_loopback_addresses_alone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("postgresql://u:p@localhost:{port}/db");
        let url = DatabaseUrl::parse(&url).unwrap();
        let budget = Duration::from_secs(10);
        let mut dialler = Dialler::new(&url, budget, Timer::Runtime).unwrap();
        let reach = async |dialler: &Dialler| {
            let peers = resolve(&dialler.servers[0], false).await?;
            dialler.redial(peers.last().unwrap()).await
        };
        let mut host = url.hosts()[0].clone();
        for (address, is_local) in [
            ("127.0.0.1", true),
            ("203.0.113.5", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::ffff:203.0.113.5", false),
        ] {
            host.name = HostName::Tcp("localhost".to_owned());
            host.address = Some(address.parse().unwrap());
            dialler.servers = vec![vec![host.clone()]];
            match reach(&dialler).await {
                Ok(_) => assert!(is_local, "{address}"),
                Err(DialError::Forbidden { source, .. }) => {
                    assert!(!is_local, "{address}");
                    let expected: std::net::IpAddr = address.parse().unwrap();
                    assert!(
                        source.to_string().contains(&expected.to_string()),
                        "{source}"
                    );
                }
                Err(error) => panic!("{address}: {error}"),
            }
        }
    }
}
