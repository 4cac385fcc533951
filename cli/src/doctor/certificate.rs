//! The certificates that a server shows.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::report::{Check, Finding, Status};

/// Describes the chain, whose first certificate is the server's own. Returns `None` if there is nothing to say.
pub(crate) fn check(chain: &[CertificateDer<'_>], untrusted: Option<Finding>) -> Option<Check> {
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
        (Some(finding), _) => check.found(Status::Failure, finding),
        (None, None) => return None,
        (None, Some(leaf)) if leaf.days_left < SOON => check.found(
            Status::Warning,
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

/// How many days make a warning; Let's Encrypt's certificates are renewed when they have 30 left.
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

/// Returns the time by this machine's clock.
pub(crate) fn clock() -> String {
    match x509_cert::der::DateTime::from_unix_duration(now()) {
        Ok(now) => now.to_string(),
        Err(_) => "an impossible time".to_owned(),
    }
}
