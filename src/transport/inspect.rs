//! [`Inspection`]: the certificates that a server shows in a TLS handshake, trusted or not.

use std::io;
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, DigitallySignedStruct, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::Peer;
use super::client_config::{Alpn, client_config};
use super::error::DialError;
use super::tls::{self, Tls};
use crate::util::lock;

/// The result of one handshake.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// The server's certificates, its own first, which rustls does not return if it refuses them.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) session: Result<TlsSession, DialError>,
}

/// The parameters that client and server agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSession {
    /// The version of TLS.
    pub version: Option<ProtocolVersion>,
    /// The cipher suite.
    pub cipher_suite: Option<CipherSuite>,
    /// The protocol that ALPN chose, which is `postgresql` if the server knows ALPN.
    pub alpn: Option<Vec<u8>>,
}

impl Inspection {
    pub(super) fn failed(error: DialError) -> Self {
        Self {
            certificates: Vec::new(),
            session: Err(error),
        }
    }
}

impl Tls {
    /// Makes a handshake as [`negotiate`](Self::negotiate) does, and closes the stream.
    pub(super) async fn inspect(&self, mut stream: TcpStream, peer: &Peer) -> Inspection {
        match self.ask(&mut stream, peer).await {
            Ok(()) => self.inspect_handshake(stream, peer, Alpn::Postgres).await,
            Err(error) => Inspection::failed(error),
        }
    }

    /// Makes a handshake over `stream`, and closes it.
    pub(super) async fn inspect_handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: &Peer,
        alpn: Alpn,
    ) -> Inspection {
        let recorder = Arc::new(Recorder {
            inner: Arc::clone(&self.verifier),
            shown: Mutex::default(),
        });
        let session = self.shake_hands(stream, peer, alpn, Arc::clone(&recorder));
        let session = session.await;
        let certificates = std::mem::take(&mut *lock(&recorder.shown));
        Inspection {
            certificates,
            session: session.map_err(|error| tls::failed(&peer.address, error)),
        }
    }

    async fn shake_hands(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: &Peer,
        alpn: Alpn,
        recorder: Arc<Recorder>,
    ) -> io::Result<TlsSession> {
        let name = ServerName::try_from(peer.name.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut config =
            client_config(Arc::clone(&self.verifier), alpn).map_err(io::Error::other)?;
        config.dangerous().set_certificate_verifier(recorder);
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await?;
        let (_, connection) = stream.get_ref();
        let suite = connection.negotiated_cipher_suite();
        let session = TlsSession {
            version: connection.protocol_version(),
            cipher_suite: suite.map(|suite| suite.suite()),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        };
        // The handshake has succeeded even if its close_notify cannot be sent.
        let _ = stream.shutdown().await;
        Ok(session)
    }
}

/// Verifies as the pool does, and keeps the server's certificates.
#[derive(Debug)]
struct Recorder {
    inner: Arc<WebPkiServerVerifier>,
    shown: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = [end_entity].into_iter().chain(intermediates);
        *lock(&self.shown) = chain.map(|one| one.clone().into_owned()).collect();
        let inner = &self.inner;
        inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
