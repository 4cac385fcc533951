//! [`Tls`]: negotiates TLS on a TCP stream, and hands the result to tokio-postgres.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Peer};
use super::client_config::{Alpn, TlsError, client_config};
use super::error::DialError;
use crate::url::SslNegotiation;

pub(super) type Stream = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::Stream;

/// The settings of TLS.
#[derive(Clone)]
pub(super) struct Tls {
    connect: MakeRustlsConnect,
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    pub(super) negotiation: SslNegotiation,
}

impl Tls {
    pub(super) fn new(
        verifier: Arc<WebPkiServerVerifier>,
        negotiation: SslNegotiation,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            connect: MakeRustlsConnect::new(client_config(Arc::clone(&verifier), Alpn::Postgres)?),
            verifier,
            negotiation,
        })
    }

    pub(super) async fn negotiate(
        &self,
        mut stream: TcpStream,
        peer: &Peer,
    ) -> Result<Stream, DialError> {
        self.ask(&mut stream, peer).await?;
        let mut connect = self.connect.clone();
        let Ok(connect) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connect, &peer.name);
        let stream = TlsConnect::connect(connect, stream).await;
        stream.map_err(|error| failed(&peer.address, error))
    }

    /// Asks the server for TLS by SSLRequest; does nothing for direct negotiation.
    pub(super) async fn ask(&self, stream: &mut TcpStream, peer: &Peer) -> Result<(), DialError> {
        if self.negotiation == SslNegotiation::Direct {
            return Ok(());
        }
        let response = request(stream).await;
        let address = || peer.address.clone();
        match response.map_err(|error| failed(&peer.address, error))? {
            b'S' => Ok(()),
            b'N' => Err(DialError::NoTls(address())),
            b'E' => Err(DialError::Refused(address())),
            _ => Err(DialError::NotPostgres(address())),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("negotiation", &self.negotiation)
            .finish_non_exhaustive()
    }
}

/// Sends SSLRequest, and returns the one byte of the response.
async fn request(stream: &mut TcpStream) -> io::Result<u8> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    stream.write_all(&SSL_REQUEST).await?;
    stream.read_u8().await
}

pub(super) fn failed(address: &Address, source: io::Error) -> DialError {
    let address = address.clone();
    match source.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => DialError::Closed { address, source },
        _ => DialError::Tls { address, source },
    }
}

/// Tells tokio-postgres that TLS is negotiated already.
#[derive(Debug)]
pub(crate) struct Negotiated;

impl Negotiated {
    /// Returns `config` for a stream that is ready for the startup message.
    pub(crate) fn config(config: &tokio_postgres::Config) -> tokio_postgres::Config {
        use tokio_postgres::config::{SslMode, SslNegotiation};

        let mut config = config.clone();
        // tokio-postgres asks only a TLS stream for its channel binding.
        config
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        config
    }
}

impl<S: AsyncRead + AsyncWrite + TlsStream + Unpin> TlsConnect<S> for Negotiated {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}
