//! The way to the server: names, addresses, and whether somebody listens there.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use diesel_neon::{Host, HostName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::report::{Check, Finding, Role};

/// Where a host can be reached.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    #[cfg_attr(not(unix), allow(dead_code))]
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What bytes travel on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Address {
    pub(crate) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            #[cfg(unix)]
            Self::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
            #[cfg(not(unix))]
            Self::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

/// A step that did not end in time is an error like any other.
pub(crate) async fn bounded<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        )),
    }
}

/// The host's addresses, in the order in which the drivers try them.
pub(crate) async fn resolve(host: &Host, limit: Duration) -> (Vec<Address>, Check) {
    let began = Instant::now();
    let name = match &host.name {
        HostName::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", host.port));
            let check = Check::ok("dns", "a Unix socket, nothing to look up");
            return (vec![Address::Unix(path)], check);
        }
        HostName::Tcp(name) => name,
    };
    if let Some(address) = host.address {
        let address = SocketAddr::new(address, host.port);
        let check = Check::ok(
            "dns",
            format!("{}: hostaddr is given, not looked up", address.ip()),
        )
        .fact("host", name.as_str())
        .fact("addresses", vec![address.ip().to_string()]);
        return (vec![Address::Tcp(address)], check);
    }
    let found = bounded(limit, async {
        let found = lookup_host((name.as_str(), host.port)).await?;
        Ok(found.collect::<Vec<_>>())
    })
    .await;
    let check = match &found {
        Ok(addresses) if !addresses.is_empty() => {
            let ips: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            Check::ok("dns", format!("{name}: {}", ips.join(", "))).fact("addresses", ips)
        }
        Ok(_) => Check::failure("dns", format!("{name} has no address"), unresolved(name)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Check::failure(
            "dns",
            format!("{name} was not looked up in time"),
            Finding::new(
                "dns-timeout",
                "this machine's name service does not answer",
                "check its resolver (/etc/resolv.conf) and the network; inside a container or a VPN \
                 it is often another one",
            )
            .with_error(error.to_string()),
        ),
        Err(error) => Check::failure(
            "dns",
            format!("{name} does not resolve"),
            unresolved(name).with_error(error.to_string()),
        ),
    };
    let addresses = found.unwrap_or_default().into_iter().map(Address::Tcp);
    let check = check.fact("host", name.as_str()).took(began.elapsed());
    (addresses.collect(), check)
}

fn unresolved(name: &str) -> Finding {
    Finding::new(
        "dns-unresolved",
        match name.ends_with(".neon.tech") {
            true => {
                "no such host: the endpoint or the region in it is misspelt, the endpoint was deleted, \
                 or this machine cannot look names up"
            }
            false => "no such host, or this machine cannot look names up",
        },
        "compare the host with Neon's console; check that this machine resolves other names",
    )
}

/// Connects to every address at the same time.
pub(crate) async fn reach(addresses: &[Address], limit: Duration) -> (Option<Address>, Vec<Check>) {
    let mut attempts = JoinSet::new();
    for (at, address) in addresses.iter().cloned().enumerate() {
        attempts.spawn(async move {
            let began = Instant::now();
            let opened = bounded(limit, address.open()).await.map(drop);
            (at, opened, began.elapsed())
        });
    }
    let mut results = attempts.join_all().await;
    results.sort_by_key(|(at, ..)| *at);
    let first = results
        .iter()
        .find(|(_, opened, _)| opened.is_ok())
        .map(|(at, ..)| addresses[*at].clone());

    let checks = results.into_iter().map(|(at, opened, took)| {
        let address = &addresses[at];
        let check = match opened {
            Ok(()) => Check::ok("tcp", format!("{address} answers")),
            Err(error) => {
                let (summary, finding) = unreachable(address, &error);
                match first {
                    // The system says so at once, and costs the app nothing.
                    Some(_) if is_without_ipv6(address, &error) => {
                        Check::ok("tcp", format!("{address}: no IPv6 here"))
                    }
                    // The drivers go on to the next address, which costs the app time only.
                    Some(_) => Check::warning("tcp", summary, finding),
                    None => Check::failure("tcp", summary, finding),
                }
            }
        };
        check.fact("address", address.to_string()).took(took)
    });
    (first.clone(), checks.collect())
}

fn is_without_ipv6(address: &Address, error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};

    matches!(address, Address::Tcp(address) if address.is_ipv6())
        && matches!(
            error.kind(),
            AddrNotAvailable | HostUnreachable | NetworkUnreachable
        )
}

fn unreachable(address: &Address, error: &io::Error) -> (String, Finding) {
    let (summary, finding) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            "refuses",
            Finding::new(
                "tcp-refused",
                "the machine is there, but nothing listens on that port",
                "check the port in the URL (Neon's is 5432), and whether the server runs",
            ),
        ),
        io::ErrorKind::TimedOut => (
            "does not answer",
            Finding::new(
                "tcp-timeout",
                "packets go out and nothing comes back: a firewall drops them, or the address is wrong",
                "allow outgoing TCP to the port (Neon's is 5432); many networks let only 443 through",
            ),
        ),
        io::ErrorKind::NotFound => (
            "is not there",
            Finding::new(
                "socket-missing",
                "no server has its Unix socket there",
                "check the folder and the port, and whether the server runs",
            ),
        ),
        _ => (
            "cannot be reached",
            Finding::new(
                "tcp-unreachable",
                "the network does not lead there; with an IPv6 address, this machine may have no IPv6",
                "check the network, VPN and firewall",
            ),
        ),
    };
    (
        format!("{address} {summary}"),
        finding.with_error(error.to_string()),
    )
}

/// For checks that belong to one of the endpoints.
pub(crate) fn of(role: Role, mut check: Check) -> Check {
    check.endpoint = Some(role);
    check
}
