//! TLS as the pool would speak it, and the certificates that the server shows.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use diesel_neon::{RootCertificates, SslNegotiation};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::network::{Address, Stream, bounded};
use super::report::{Check, Finding};

/// What it takes to speak TLS with one host.
pub(crate) struct Probe<'a> {
    pub(crate) address: &'a Address,
    pub(crate) host: &'a str,
    pub(crate) config: ClientConfig,
    pub(crate) negotiation: SslNegotiation,
    pub(crate) roots: &'a RootCertificates,
    pub(crate) limit: Duration,
}

impl Probe<'_> {
    /// Makes one handshake and closes; whether it came about, and what was seen.
    pub(crate) async fn run(self) -> (bool, Vec<Check>) {
        let began = Instant::now();
        let shaken = bounded(self.limit, self.handshake(self.config.clone())).await;
        let took = began.elapsed();
        match shaken {
            Ok(shaken) => {
                let mut checks = vec![self.agreed(&shaken).took(took)];
                checks.extend(certificate(&shaken.chain, None));
                (true, checks)
            }
            Err(error) => {
                let failed = match rustls_error(&error) {
                    Some(rustls::Error::InvalidCertificate(reason)) => {
                        // rustls keeps what it refuses to itself, and the issuer's name explains most.
                        let chain = self.look_only().await;
                        let finding = self.untrusted(reason).with_error(error.to_string());
                        let tls = Check::ok("tls", "the server speaks TLS").took(took);
                        return (false, [tls].into_iter().chain(certificate(&chain, Some(finding))).collect());
                    }
                    Some(_) => Check::failure(
                        "tls",
                        "the handshake fails",
                        Finding::new(
                            "tls-failed",
                            "client and server find no common ground, or something in between interferes",
                            "check that host and port are the server's own, without a proxy in between",
                        )
                        .with_error(error.to_string()),
                    ),
                    None => broken(&error),
                };
                (false, vec![failed.took(took)])
            }
        }
    }

    async fn handshake(&self, config: ClientConfig) -> io::Result<Shaken> {
        let name = ServerName::try_from(self.host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut stream = self.address.open().await?;
        if self.negotiation == SslNegotiation::Postgres {
            request(&mut stream).await?;
        }
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let (_, session) = stream.get_ref();
        let shaken = Shaken {
            version: session.protocol_version(),
            cipher: session
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite())),
            alpn: session
                .alpn_protocol()
                .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
            chain: session
                .peer_certificates()
                .unwrap_or_default()
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
        };
        // Politeness only.
        let _ = stream.shutdown().await;
        Ok(shaken)
    }

    /// A handshake that always fails, for the sake of the certificates in it.
    async fn look_only(&self) -> Vec<CertificateDer<'static>> {
        let seen = Arc::new(Seen::default());
        let mut config = self.config.clone();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(LookOnly {
                seen: Arc::clone(&seen),
                schemes: self
                    .config
                    .crypto_provider()
                    .signature_verification_algorithms
                    .supported_schemes(),
            }));
        let _ = bounded(self.limit, self.handshake(config)).await;
        let mut seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut seen)
    }

    fn agreed(&self, shaken: &Shaken) -> Check {
        let version = match shaken.version {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        let how = match self.negotiation {
            SslNegotiation::Direct => "direct",
            SslNegotiation::Postgres => "postgres",
        };
        let alpn = match &shaken.alpn {
            Some(protocol) => format!("ALPN {protocol}"),
            None => "no ALPN".to_owned(),
        };
        let cipher = shaken.cipher.as_deref().unwrap_or("unknown");
        Check::ok(
            "tls",
            format!("{version}, sslnegotiation={how}, {alpn}, {cipher}"),
        )
        .fact("version", version)
        .fact("negotiation", how)
        .fact("alpn", shaken.alpn.clone())
        .fact("cipher", cipher)
        .fact("server_name", self.host)
    }

    fn untrusted(&self, reason: &CertificateError) -> Finding {
        match reason {
            // A root of the same name with another key is as good as none.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => match self.roots {
                RootCertificates::File(path) => Finding::new(
                    "certificate-unknown-issuer",
                    format!(
                        "whoever issued it is not among the roots in {}, which sslrootcert names: the file \
                         is stale, or something in between shows a certificate of its own",
                        path.display()
                    ),
                    "see the issuer above; for Neon leave sslrootcert out of the URL: the system's roots do",
                ),
                RootCertificates::System => Finding::new(
                    "certificate-unknown-issuer",
                    "whoever issued it is not among this machine's roots: they are stale or missing, or \
                     a company's proxy shows a certificate of its own",
                    "update the ca-certificates package; if the issuer above is a proxy that is meant to be \
                     there, add its root to the system's, or name it with SSL_CERT_FILE or sslrootcert=…",
                ),
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Finding::new(
                "certificate-expired",
                format!(
                    "it is too old, or this machine's clock, at {}, is ahead",
                    clock()
                ),
                "check the clock first (NTP); if it is right, the server's operator must renew the \
                 certificate",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Finding::new(
                    "certificate-not-yet-valid",
                    format!(
                        "it is from the future: this machine's clock, at {}, is behind",
                        clock()
                    ),
                    "set the clock (NTP)",
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Finding::new(
                    "certificate-wrong-host",
                    format!(
                        "it is made out to other names than {}: the URL names an alias or an address, or \
                         leads to another server",
                        self.host
                    ),
                    "use the host name that Neon's console shows; where the address must be given, put it \
                     into hostaddr=… beside it",
                )
            }
            CertificateError::Revoked => Finding::new(
                "certificate-revoked",
                "its issuer has withdrawn it",
                "the server's operator must replace it",
            ),
            _ => Finding::new(
                "certificate-invalid",
                "it cannot be verified",
                "check that host and port are the server's own, without a proxy in between",
            ),
        }
    }
}

struct Shaken {
    version: Option<ProtocolVersion>,
    cipher: Option<String>,
    alpn: Option<String>,
    chain: Vec<CertificateDer<'static>>,
}

/// Postgres's question whether it may be TLS.
async fn request(stream: &mut Box<dyn Stream>) -> io::Result<()> {
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(io::Error::other(NoTls)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a Postgres server",
        )),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("server does not support TLS")]
struct NoTls;

fn broken(error: &io::Error) -> Check {
    let no_tls = error.get_ref().is_some_and(|inner| inner.is::<NoTls>());
    let (summary, finding) = match error.kind() {
        _ if no_tls => (
            "the server speaks no TLS",
            Finding::new(
                "tls-unsupported",
                "the URL wants TLS and the server has none: it is not Neon's, or a tunnel ends there",
                "for a server on this machine use sslmode=disable with host localhost; else switch TLS on \
                 in the server",
            ),
        ),
        io::ErrorKind::TimedOut => (
            "the server does not answer",
            Finding::new(
                "tls-timeout",
                "the port is open, but whoever listens there does not speak Postgres or TLS, or hangs",
                "check host and port; a firewall that lets only some protocols through does this too",
            ),
        ),
        io::ErrorKind::InvalidInput => (
            "the host's name is none that TLS knows",
            Finding::new(
                "tls-name",
                "certificates are checked against the host's name, and this is not a DNS name",
                "use the host name that Neon's console shows",
            ),
        ),
        _ => (
            "the connection breaks",
            Finding::new(
                "tls-closed",
                "whoever listens there closes as soon as TLS begins: another protocol, a firewall, or \
                 sslnegotiation=direct with a server before PostgreSQL 17",
                "check host and port; try sslnegotiation=postgres",
            ),
        ),
    };
    Check::failure("tls", summary, finding.with_error(error.to_string()))
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The chain in words; the first certificate is the server's own.
fn certificate(chain: &[CertificateDer<'_>], untrusted: Option<Finding>) -> Option<Check> {
    let shown: Vec<Shown> = chain.iter().filter_map(Shown::of).collect();
    let check = match shown.first() {
        Some(leaf) => {
            let mut check = Check::ok("certificate", leaf.to_string())
                .fact("subject", leaf.subject.as_str())
                .fact("issuer", leaf.issuer.as_str())
                .fact("names", leaf.names.clone())
                .fact("not_before", leaf.not_before.as_str())
                .fact("not_after", leaf.not_after.as_str())
                .fact("days_left", leaf.days_left)
                .fact(
                    "chain",
                    shown
                        .iter()
                        .map(|one| one.subject.clone())
                        .collect::<Vec<_>>(),
                );
            for (at, one) in shown.iter().enumerate() {
                check = check.detail(format!("{at}: {}, issued by {}", one.subject, one.issuer));
            }
            check
        }
        None => Check::ok("certificate", "none that can be read"),
    };
    Some(match (untrusted, shown.first()) {
        (Some(finding), _) => check.found(super::report::Status::Failure, finding),
        (None, None) => return None,
        (None, Some(leaf)) if leaf.days_left < SOON => check.found(
            super::report::Status::Warning,
            Finding::new(
                "certificate-expiring",
                format!("it ends in {} days; Neon renews its own long before that", leaf.days_left),
                "if the server is yours, renew it; else check this machine's clock, and for a proxy in \
                 between",
            ),
        ),
        _ => check,
    })
}

/// Days; Let's Encrypt's certificates are renewed when they have 30 left.
const SOON: i64 = 14;

struct Shown {
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    days_left: i64,
}

impl Shown {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?.tbs_certificate;
        let names = match certificate.get::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0,
            _ => Vec::new(),
        };
        let not_after = certificate.validity.not_after;
        let left =
            |now: Duration| not_after.to_unix_duration().as_secs() as i64 - now.as_secs() as i64;
        Some(Self {
            subject: certificate.subject.to_string(),
            issuer: certificate.issuer.to_string(),
            names: names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DnsName(name) => Some(name.to_string()),
                    GeneralName::IpAddress(bytes) => Some(ip(bytes.as_bytes())),
                    _ => None,
                })
                .collect(),
            not_before: certificate.validity.not_before.to_date_time().to_string(),
            not_after: not_after.to_date_time().to_string(),
            days_left: left(now()).div_euclid(24 * 60 * 60),
        })
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match self.names.is_empty() {
            true => "no name".to_owned(),
            false => self.names.join(", "),
        };
        let day = self.not_after.split('T').next().unwrap_or_default();
        match self.days_left {
            left if left < 0 => write!(f, "for {names}, ended on {day}, {} days ago", -left),
            left => write!(f, "for {names}, until {day}, {left} days left"),
        }
    }
}

fn ip(bytes: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(four).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(sixteen) => std::net::Ipv6Addr::from(sixteen).to_string(),
        Err(_) => "an address".to_owned(),
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// This machine's idea of the time.
fn clock() -> String {
    match x509_cert::der::DateTime::from_unix_duration(now()) {
        Ok(now) => now.to_string(),
        Err(_) => "an impossible time".to_owned(),
    }
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<CertificateDer<'static>>>);

/// Trusts nobody, and remembers whom it met.
#[derive(Debug)]
struct LookOnly {
    seen: Arc<Seen>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for LookOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = [end_entity].into_iter().chain(intermediates);
        *self.seen.0.lock().unwrap_or_else(PoisonError::into_inner) =
            chain.map(|one| one.clone().into_owned()).collect();
        Err(refusal())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refusal())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refusal())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

fn refusal() -> rustls::Error {
    rustls::Error::General("looked at only".to_owned())
}
