//! Where to connect.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::UrlError;
use super::parameters::number;
use super::parse::decode;

/// One of a URL's hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// The name that certificates are checked against, or a socket's directory.
    pub name: HostName,
    /// `hostaddr`: where to connect instead of looking the name up.
    pub address: Option<IpAddr>,
    /// The TCP port, or the socket file's number.
    pub port: u16,
}

impl Host {
    pub(super) fn is_neon(&self) -> bool {
        matches!(&self.name, HostName::Tcp(name) if name.ends_with(".neon.tech"))
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.name, HostName::Unix(_))
    }

    pub(super) fn is_local(&self) -> bool {
        match &self.name {
            HostName::Unix(_) => true,
            // By its name alone: a tunnel to a remote host still has that host's certificate to show.
            HostName::Tcp(name) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

/// A host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum HostName {
    /// A DNS name or an IP address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Either every host has an address or none has.
pub(super) fn hosts(
    list: &str,
    addresses: Option<&str>,
    ports: Option<&str>,
) -> Result<Vec<Host>, UrlError> {
    let addresses: Vec<IpAddr> = list_of("hostaddr", addresses, "one IP address for each host")?;
    let ports: Vec<u16> = list_of("port", ports, "one number from 1 to 65535 for each host")?;

    let names: Vec<&str> = match list {
        "" => vec![""; addresses.len()],
        list => list.split(',').collect(),
    };
    for (key, found) in [("hostaddr", addresses.len()), ("port", ports.len())] {
        let fits = found == 0 || found == names.len() || (key == "port" && found == 1);
        if !fits {
            return Err(UrlError::Count {
                key,
                found,
                hosts: names.len(),
            });
        }
    }

    let hosts = names.iter().enumerate().map(|(i, text)| {
        let address = addresses.get(i).copied();
        let (name, port) = host_and_port(text)?;
        let name = match (name.as_str(), address) {
            ("", None) => return Err(UrlError::NoHost),
            ("", Some(address)) => HostName::Tcp(address.to_string()),
            (name, _) if name.starts_with('/') => HostName::Unix(Path::new(name).to_owned()),
            (name, _) => HostName::Tcp(name.to_ascii_lowercase()),
        };
        let listed = ports.get(i).or_else(|| ports.first()).copied();
        Ok(Host {
            name,
            address,
            port: port.or(listed).unwrap_or(5432),
        })
    });
    let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    let sockets = hosts.iter().filter(|host| host.is_unix()).count();
    match hosts.len() {
        0 => Err(UrlError::NoHost),
        all if sockets == 0 || sockets == all => Ok(hosts),
        _ => Err(UrlError::InvalidValue {
            key: "host",
            expected: "either TCP hosts or Unix sockets, not both",
        }),
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or(UrlError::Malformed)?;
            (name, port.strip_prefix(':').unwrap_or(port))
        }
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let name = decode(name, "host")?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    if !name.starts_with('/') && !name.bytes().all(is_name) {
        return Err(UrlError::Malformed);
    }
    let port = match port {
        "" => None,
        // Not `InvalidValue`: what stands here may be half a password.
        port => Some(port.parse().map_err(|_| UrlError::Malformed)?),
    };
    if port == Some(0) {
        return Err(UrlError::Malformed);
    }
    Ok((name, port))
}

fn list_of<T: FromStr>(
    key: &'static str,
    list: Option<&str>,
    expected: &'static str,
) -> Result<Vec<T>, UrlError> {
    let items = list.into_iter().flat_map(|list| list.split(','));
    items.map(|item| number(key, item, expected)).collect()
}
