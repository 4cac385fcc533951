//! [`Https`]: the way to port 443 of a host, through a proxy if the environment names one, and TLS for HTTP.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::{Gateway, Listener, Peer};
use super::below::Below;
#[cfg(feature = "http")]
use super::client_config::HTTP_2;
use super::client_config::{Alpn, TlsError, client_config};
use super::error::DialError;
use super::proxy::{Proxies, ProxyError, authority};
use super::resolve::resolve;
use super::tls::failed;
#[cfg(feature = "websocket")]
use super::websocket::WebSocket;
use crate::url::{DatabaseUrl, Host, HostName};

/// The settings of the way.
pub(super) struct Https {
    /// `None` for plain text, which goes to no proxy.
    tls: Option<TlsConnector>,
    /// The same, for a server that may know HTTP/2.
    #[cfg(feature = "http")]
    http_2: Option<TlsConnector>,
    proxies: Proxies,
    port: u16,
}

impl Https {
    pub(super) fn new(
        url: &DatabaseUrl,
        verifier: Option<Arc<WebPkiServerVerifier>>,
    ) -> Result<Self, TlsError> {
        let connector = |alpn| {
            let config = verifier
                .as_ref()
                .map(|verifier| client_config(Arc::clone(verifier), alpn));
            let config = config.transpose()?;
            Ok(config.map(|config| TlsConnector::from(Arc::new(config))))
        };
        Ok(Self {
            tls: connector(Alpn::Http)?,
            #[cfg(feature = "http")]
            http_2: connector(Alpn::Http2)?,
            proxies: Proxies::from_env(url.https_port()),
            port: url.https_port(),
        })
    }

    /// Returns the addresses of one server, in the order in which they are tried: those of the proxy if there is one,
    /// which looks the server's name up itself.
    pub(super) async fn resolve(
        &self,
        server: &[Host],
        shuffled: bool,
    ) -> Result<Vec<Peer>, DialError> {
        let mut peers = Vec::new();
        for host in server {
            let HostName::Tcp(name) = &host.name else {
                continue;
            };
            let proxy = match self.tls {
                Some(_) => self.proxies.proxy_for(name, self.port),
                None => Ok(None),
            };
            let proxy = proxy.map_err(|source| DialError::Proxy {
                proxy: "in the environment".to_owned(),
                name: name.clone(),
                source,
            })?;
            let mut next = host.clone();
            next.port = self.port;
            if let Some(proxy) = &proxy {
                next.name = HostName::Tcp(proxy.host.clone());
                next.address = None;
                next.port = proxy.port;
            }
            let gateway = Gateway {
                port: self.port,
                proxy,
            };
            let found = resolve(&[next], shuffled).await;
            let found = found.map_err(|error| gateway.unreached(name, error))?;
            for mut peer in found {
                peer.name.clone_from(name);
                peer.listener = Listener::Https(gateway.clone());
                if !peers.contains(&peer) {
                    peers.push(peer);
                }
            }
        }
        Ok(peers)
    }

    /// Prepares a WebSocket over a TCP stream to `peer`.
    #[cfg(feature = "websocket")]
    pub(super) async fn websocket(
        &self,
        stream: TcpStream,
        peer: &Peer,
        gateway: &Gateway,
    ) -> Result<WebSocket, DialError> {
        let below = self.tunnel(stream, peer, gateway).await?;
        let below = self.secure(below, &peer.name, peer).await?;
        Ok(WebSocket::new(below, &gateway.host_header(&peer.name)))
    }

    /// Prepares a stream for HTTP over a TCP stream to `peer`.
    #[cfg(feature = "http")]
    pub(super) async fn http(
        &self,
        stream: TcpStream,
        peer: &Peer,
        gateway: &Gateway,
    ) -> Result<HttpStream, DialError> {
        let below = self.tunnel(stream, peer, gateway).await?;
        let host = gateway.host_header(&peer.name);
        let Some(tls) = &self.http_2 else {
            return Ok(HttpStream {
                below,
                is_http_2: false,
                is_tls: false,
                host,
            });
        };
        let secured = handshake(tls, below, &peer.name, peer).await?;
        let (_, session) = secured.get_ref();
        Ok(HttpStream {
            is_http_2: session.alpn_protocol() == Some(HTTP_2),
            is_tls: true,
            below: Box::new(secured),
            host,
        })
    }

    /// Reaches the server over a TCP stream to `peer`, which is the proxy's if there is one.
    pub(super) async fn tunnel(
        &self,
        stream: TcpStream,
        peer: &Peer,
        gateway: &Gateway,
    ) -> Result<Box<dyn Below>, DialError> {
        let mut below: Box<dyn Below> = Box::new(stream);
        if let Some(proxy) = &gateway.proxy {
            if proxy.is_tls {
                let secured = self.secure(below, &proxy.host, peer).await;
                below = secured.map_err(|error| match error {
                    DialError::Tls { source, .. } | DialError::Closed { source, .. } => {
                        gateway.failed(&peer.name, ProxyError::Tls(source))
                    }
                    error => error,
                })?;
            }
            let tunnel = proxy.tunnel(&mut below, &peer.name, gateway.port).await;
            tunnel.map_err(|source| gateway.failed(&peer.name, source))?;
        }
        Ok(below)
    }

    /// Makes the TLS handshake with `name`, unless the URL means plain text.
    async fn secure(
        &self,
        below: Box<dyn Below>,
        name: &str,
        peer: &Peer,
    ) -> Result<Box<dyn Below>, DialError> {
        let Some(tls) = &self.tls else {
            return Ok(below);
        };
        Ok(Box::new(handshake(tls, below, name, peer).await?))
    }
}

/// Makes a TLS handshake with `name`.
async fn handshake(
    tls: &TlsConnector,
    below: Box<dyn Below>,
    name: &str,
    peer: &Peer,
) -> Result<TlsStream<Box<dyn Below>>, DialError> {
    let secured = async {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        tls.connect(name, below).await
    };
    secured.await.map_err(|error| failed(&peer.address, error))
}

/// A stream that HTTP begins on.
#[cfg(feature = "http")]
pub(crate) struct HttpStream {
    pub(super) below: Box<dyn Below>,
    /// Whether the server has chosen HTTP/2.
    pub(crate) is_http_2: bool,
    pub(crate) is_tls: bool,
    /// The host and its port as the Host header has them.
    pub(crate) host: String,
}

impl Gateway {
    /// Returns the host `name` as the Host header has it.
    fn host_header(&self, name: &str) -> String {
        match self.port {
            443 if !name.contains(':') => name.to_owned(),
            port => authority(name, port),
        }
    }

    /// Returns the failure of the proxy on the way to the host `name`.
    fn failed(&self, name: &str, source: ProxyError) -> DialError {
        DialError::Proxy {
            proxy: self
                .proxy
                .as_ref()
                .map_or(String::new(), ToString::to_string),
            name: name.to_owned(),
            source,
        }
    }

    /// Returns the failure to reach the address of the proxy if there is one, else of the host `name`.
    pub(super) fn unreached(&self, name: &str, error: DialError) -> DialError {
        match self.proxy {
            Some(_) => self.failed(name, ProxyError::Unreached(Box::new(error))),
            None => error,
        }
    }
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https")
            .field("proxies", &self.proxies)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
