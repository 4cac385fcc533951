//! [`Host`]: the name, the address and the port of a server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::UrlError;
use super::network::{has_zone, is_loopback, is_neon};

/// One of a URL's hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Host {
    /// The name that certificates are checked against, or the directory of a Unix socket.
    pub name: HostName,
    /// `hostaddr`: the address to connect to instead of those that the name resolves to.
    pub address: Option<IpAddr>,
    /// The TCP port, or the number of the socket's file. Default: 5432.
    pub port: u16,
}

impl Host {
    pub(super) fn is_neon(&self) -> bool {
        matches!(&self.name, HostName::Tcp(name) if is_neon(name))
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.name, HostName::Unix(_))
    }

    /// Returns whether the host is this machine by its name and by its address. A loopback address alone
    /// may be the near end of a tunnel, whose far end shows a certificate for the name.
    pub(super) fn is_local(&self) -> bool {
        let is_local = match &self.name {
            HostName::Unix(_) => true,
            HostName::Tcp(name) => name == "localhost" || name.parse().is_ok_and(is_loopback),
        };
        is_local && self.known_address().is_none_or(is_loopback)
    }

    /// Returns the address that is dialled, if the URL has it.
    pub(super) fn known_address(&self) -> Option<IpAddr> {
        match &self.name {
            HostName::Tcp(name) => self.address.or_else(|| name.parse().ok()),
            HostName::Unix(_) => None,
        }
    }
}

/// A host's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

/// Returns the hosts of a URL. There are no `addresses` or one for each name, and no `ports`, one for each
/// name, or one for all.
pub(super) fn hosts(
    mut names: Vec<String>,
    addresses: Option<&str>,
    ports: &[String],
) -> Result<Vec<Host>, UrlError> {
    let addresses = match addresses {
        None | Some("") => Vec::new(),
        Some(list) => list.split(',').map(address).collect::<Result<_, _>>()?,
    };
    if names.is_empty() {
        names = vec![String::new(); addresses.len()];
    }
    for (key, found) in [("hostaddr", addresses.len()), ("port", ports.len())] {
        let fits = found == 0 || found == names.len() || (key == "port" && found == 1);
        if !fits && !names.is_empty() {
            return Err(UrlError::Count {
                key,
                found,
                hosts: names.len(),
            });
        }
    }

    let hosts = names.into_iter().enumerate().map(|(i, name)| {
        let address = addresses.get(i).copied();
        let text = ports.get(i).or(ports.first()).map_or("", String::as_str);
        let port = match text {
            "" => 5432,
            text => text.parse().map_err(|_| UrlError::Port)?,
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        Ok(Host {
            name: host_name(name, address)?,
            address,
            port,
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

/// Checks the name of a host. Errors never quote it: it may be half a password.
fn host_name(name: String, address: Option<IpAddr>) -> Result<HostName, UrlError> {
    if name.starts_with('/') {
        return match address {
            Some(_) => Err(UrlError::SocketWithAddress),
            // For libpq a comma ends the folder's name, percent-encoded or not.
            None if name.contains(',') => Err(UrlError::Host),
            None => Ok(HostName::Unix(name.into())),
        };
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match (name.as_str(), address) {
        ("", None) => Err(UrlError::NoHost),
        ("", Some(address)) => Ok(HostName::Tcp(address.to_string())),
        (name, _) if name.parse::<Ipv6Addr>().is_ok() || name.bytes().all(is_name) => {
            Ok(HostName::Tcp(name.to_ascii_lowercase()))
        }
        (name, _) if has_zone(name) => Err(UrlError::ZoneId),
        (name, _) if !name.is_ascii() => Err(UrlError::HostNotAscii),
        _ => Err(UrlError::Host),
    }
}

fn address(text: &str) -> Result<IpAddr, UrlError> {
    text.parse().map_err(|_| match has_zone(text) {
        true => UrlError::ZoneId,
        false => UrlError::InvalidValue {
            key: "hostaddr",
            expected: "one IP address for each host",
        },
    })
}
