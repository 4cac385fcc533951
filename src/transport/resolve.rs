//! [`resolve`]: the addresses of a server, in the order in which they are tried.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::address::{Address, Listener, Peer};
use super::error::DialError;
use crate::url::{Host, HostName};

/// Groups the hosts of a URL into servers: adjacent hosts of one name and port are addresses of one server.
pub(super) fn servers(hosts: &[Host]) -> Vec<Vec<Host>> {
    let same = |a: &Host, b: &Host| a.name == b.name && a.port == b.port;
    hosts.chunk_by(same).map(<[Host]>::to_vec).collect()
}

/// Returns the addresses of one server, in the order in which they are tried.
pub(super) async fn resolve(server: &[Host], shuffled: bool) -> Result<Vec<Peer>, DialError> {
    let mut peers: Vec<Peer> = Vec::new();
    for Host {
        name,
        address,
        port,
        ..
    } in server
    {
        let (name, addresses) = match name {
            HostName::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                (folder.display().to_string(), vec![Address::Unix(path)])
            }
            HostName::Tcp(name) => {
                let addresses = match address {
                    Some(address) => vec![SocketAddr::new(*address, *port)],
                    None => look_up(name, *port).await?,
                };
                (
                    name.clone(),
                    addresses.into_iter().map(Address::Tcp).collect(),
                )
            }
        };
        for address in addresses {
            let peer = Peer {
                name: name.clone(),
                address,
                listener: Listener::default(),
            };
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
    }
    if shuffled {
        fastrand::shuffle(&mut peers);
    }
    Ok(interleaved(peers))
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let failed = |source| DialError::Resolve {
        name: name.to_owned(),
        source,
    };
    let found = tokio::net::lookup_host((name, port))
        .await
        .map_err(failed)?;
    let found: Vec<_> = found.collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ))),
    }
}

/// Alternates between the address families, beginning with that of the first address (RFC 8305, section 4).
fn interleaved(peers: Vec<Peer>) -> Vec<Peer> {
    let is_v6 = |peer: &Peer| matches!(peer.address, Address::Tcp(address) if address.is_ipv6());
    let Some(first) = peers.first().map(is_v6) else {
        return peers;
    };
    let (mut next, mut other): (VecDeque<_>, VecDeque<_>) =
        peers.into_iter().partition(|peer| is_v6(peer) == first);
    let mut order = Vec::new();
    while let Some(peer) = next.pop_front() {
        order.push(peer);
        if !other.is_empty() {
            std::mem::swap(&mut next, &mut other);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(addresses: &[&str]) -> Vec<Peer> {
        let peer = |address: &&str| Peer {
            name: "h.example".to_owned(),
            address: Address::Tcp(address.parse().unwrap()),
            listener: Listener::default(),
        };
        addresses.iter().map(peer).collect()
    }

    #[test]
    fn families_alternate_and_nothing_is_left_out() {
        let order = interleaved(peers(&[
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "1.1.1.1:1",
            "1.1.1.2:1",
        ]));
        let expected = peers(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(order, expected);
        let order = interleaved(peers(&["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"]));
        assert_eq!(
            order,
            peers(&["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(interleaved(Vec::new()), []);
    }
}
