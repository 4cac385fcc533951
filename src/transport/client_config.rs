//! Builds the rustls configuration for a URL's `sslrootcert`, which always verifies.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::url::{DatabaseUrl, Encryption, RootCertificates};

impl DatabaseUrl {
    /// Renders for rustls: returns the pool's own configuration of TLS, for connections that you make by hand with
    /// [`to_tokio_postgres`](Self::to_tokio_postgres). Returns `None` if the URL means plain text, which
    /// [`check_address`](Self::check_address) bounds.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] if the certificates to trust cannot be loaded.
    pub fn to_rustls(&self) -> Result<Option<ClientConfig>, TlsError> {
        match self.encryption() {
            Encryption::Tls { roots, .. } => {
                client_config(verifier(roots)?, Alpn::Postgres).map(Some)
            }
            Encryption::Plain => Ok(None),
        }
    }
}

/// Builds the client's side of TLS 1.2 and 1.3.
///
/// The crypto provider is explicit, because rustls panics if it looks one up and an application has none or
/// two of them. One configuration serves all of a pool's connections, so that they resume each other's
/// sessions.
pub(super) fn client_config(
    verifier: Arc<WebPkiServerVerifier>,
    alpn: Alpn,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn.names().iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The protocols that ALPN offers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alpn {
    /// Direct negotiation requires it; servers that know only SSLRequest ignore it.
    Postgres,
    /// HTTP/1.1, which WebSockets begin with.
    #[cfg(any(feature = "http", feature = "websocket"))]
    Http,
    /// HTTP/2, or HTTP/1.1 if the server knows no better.
    #[cfg(feature = "http")]
    Http2,
}

impl Alpn {
    fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Postgres => &[b"postgresql"],
            #[cfg(any(feature = "http", feature = "websocket"))]
            Self::Http => &[b"http/1.1"],
            #[cfg(feature = "http")]
            Self::Http2 => &[HTTP_2, b"http/1.1"],
        }
    }
}

/// The name of HTTP/2.
#[cfg(feature = "http")]
pub(super) const HTTP_2: &[u8] = b"h2";

/// Builds the verifier of the server's certificates.
pub(super) fn verifier(roots: &RootCertificates) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let store = Arc::new(root_store(roots)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(store, provider).build();
    verifier.map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))
}

/// The certificates to trust cannot be loaded.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of `sslrootcert` cannot be read, or is not PEM.
    #[error("sslrootcert {}: {reason}", .path.display())]
    RootFile {
        /// The file.
        path: PathBuf,
        /// Why the file cannot be used.
        reason: String,
    },
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, and no certificate can be loaded from there.
    #[error(
        "SSL_CERT_FILE or SSL_CERT_DIR is set, but no certificate can be loaded from there: {reason}"
    )]
    Environment {
        /// Why no certificate can be loaded.
        reason: String,
    },
    /// rustls refuses its own defaults.
    #[error("rustls cannot be configured")]
    Rustls(#[source] rustls::Error),
}

fn root_store(roots: &RootCertificates) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        RootCertificates::File(path) => {
            let error = |reason: String| TlsError::RootFile {
                path: path.clone(),
                reason,
            };
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| error(e.to_string()))?;
            for certificate in certificates {
                store.add(certificate).map_err(|e| error(e.to_string()))?;
            }
            if store.is_empty() {
                return Err(error("the file has no certificate in PEM form".to_owned()));
            }
        }
        RootCertificates::System => {
            let native = rustls_native_certs::load_native_certs();
            // Some systems have roots that webpki cannot parse; the others are still good.
            store.add_parsable_certificates(native.certs);
            if store.is_empty() {
                let chosen = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
                if chosen.iter().any(|name| std::env::var_os(name).is_some()) {
                    // These variables narrow the trust: Mozilla's roots must not replace them.
                    let mut reasons: Vec<_> =
                        native.errors.iter().map(ToString::to_string).collect();
                    if reasons.is_empty() {
                        reasons.push("there is none in PEM form".to_owned());
                    }
                    return Err(TlsError::Environment {
                        reason: reasons.join("; "),
                    });
                }
                tracing::debug!(
                    "the system has no root certificates, using Mozilla's bundled ones"
                );
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
    }
    Ok(store)
}

crate::util::debug_is_chain!(TlsError);
