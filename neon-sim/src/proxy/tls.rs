//! The stand-in's own certificate authority, and the proxy's side of TLS.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::Acceptor;
use rustls::{ProtocolVersion, ServerConfig};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::link::Link;
use crate::error::{Context, Error};

/// The certificate that the proxy shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certificate {
    /// Its time is over.
    Expired,
    /// It is in order for five more days.
    Expiring,
    /// It will be valid in five days, as for a client whose clock is slow.
    NotYetValid,
    /// It is in order but not the proxy's: something in between ends TLS and connects to the proxy with TLS of its own.
    Intercepted,
    /// It is in order but signed by another authority than the one in the CA file.
    UnknownAuthority,
    /// It is in order.
    #[default]
    Valid,
    /// It is in order but for another domain.
    WrongHost,
}

/// The proxy's side of TLS.
pub(crate) struct Tls {
    postgres: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    /// For `localhost`.
    pub(crate) local: Arc<ServerConfig>,
    /// The data of the `tls-server-end-point` channel binding.
    pub(crate) end_point: Vec<u8>,
}

impl Tls {
    /// Makes the certificates, and writes the authority's to `ca_path`; the proxy's is for `others`, too.
    pub(crate) fn new(
        domain: &str,
        others: &[&str],
        kind: Certificate,
        ca_path: &Path,
    ) -> Result<Self, Error> {
        let authority = authority()?;
        let shown = match kind {
            Certificate::UnknownAuthority => self::authority()?.pem(),
            _ => authority.pem(),
        };
        std::fs::write(ca_path, shown).context(|| format!("cannot write {}", ca_path.display()))?;

        let domain = match kind {
            Certificate::WrongHost => "elsewhere.test",
            _ => domain,
        };
        let mut names = vec![format!("*.{domain}")];
        names.extend(others.iter().map(|name| (*name).to_owned()));
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name = Default::default();
        leaf.distinguished_name
            .push(DnType::CommonName, format!("*.{domain}"));
        leaf.use_authority_key_identifier_extension = true;
        if kind == Certificate::Expired {
            leaf.not_before = date_time_ymd(2020, 1, 1);
            leaf.not_after = date_time_ymd(2020, 1, 2);
        }
        let in_five_days = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            date_time_ymd(1970, 1, 1) + now.unwrap_or_default() + FIVE_DAYS
        };
        match kind {
            Certificate::Expiring => leaf.not_after = in_five_days(),
            Certificate::NotYetValid => leaf.not_before = in_five_days(),
            _ => {}
        }
        // ECDSA with P-256 and SHA-256: clients derive the channel binding's hash from that.
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &authority)?;
        let bound_to = match kind {
            Certificate::Intercepted => &leaf.signed_by(&KeyPair::generate()?, &authority)?,
            _ => &certificate,
        };
        let end_point = digest(&SHA256, bound_to.der()).as_ref().to_vec();

        let mut config = server_config(&certificate, &key)?;
        // A client that offers another protocol is refused; one that offers none is not.
        let mut with_protocols = |protocols: &[&str]| {
            config.alpn_protocols = protocols
                .iter()
                .map(|name| name.as_bytes().into())
                .collect();
            Arc::new(config.clone())
        };
        Ok(Self {
            postgres: with_protocols(&["postgresql"]),
            https: with_protocols(&[HTTP_2, "http/1.1"]),
            local: Arc::new(local(&authority)?),
            end_point,
        })
    }

    /// Performs the handshake on PostgreSQL's port.
    pub(crate) async fn accept_postgres(&self, link: Link) -> io::Result<TlsStream<Link>> {
        accept(&self.postgres, link).await
    }

    /// Performs the handshake on the port of HTTPS.
    pub(crate) async fn accept_https(&self, link: Link) -> io::Result<TlsStream<Link>> {
        accept(&self.https, link).await
    }
}

/// The name of HTTP/2 among the protocols that a client offers.
pub(crate) const HTTP_2: &str = "h2";

/// Performs the handshake; sends an alert to a client that cannot be served.
async fn accept(config: &Arc<ServerConfig>, link: Link) -> io::Result<TlsStream<Link>> {
    // `TlsAcceptor` would close without an alert.
    let hello = LazyConfigAcceptor::new(Acceptor::default(), link).await?;
    let stream = hello.into_stream(Arc::clone(config)).await?;
    let (link, session) = stream.get_ref();
    if session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        // The last that was sent are tickets for later.
        link.turns().nobody_waits();
    }
    Ok(stream)
}

const FIVE_DAYS: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// The names of this machine that are there without a name server.
pub(crate) const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

/// Returns a configuration for `localhost` and 127.0.0.1, whose certificate is in order.
fn local(authority: &CertifiedIssuer<'_, KeyPair>) -> Result<ServerConfig, Error> {
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(LOCAL.map(str::to_owned))?;
    leaf.use_authority_key_identifier_extension = true;
    server_config(&leaf.signed_by(&key, authority)?, &key)
}

fn server_config(certificate: &rcgen::Certificate, key: &KeyPair) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok(config.with_single_cert(vec![certificate.der().clone()], key.into())?)
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = Default::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "neon-sim authority");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}
