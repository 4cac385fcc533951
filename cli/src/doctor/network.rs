//! The way to the server: names, addresses, and whether a server listens there.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use diesel_neon::diagnose::{Address, Peer, Probe};
use diesel_neon::{ConnectError, Host, HostName};
use tokio::task::JoinSet;

use super::report::{Check, Finding, Role, Status};

/// Looks up the addresses of one host.
pub(crate) async fn look_up(probe: &Probe, host: &Host) -> (Vec<Peer>, Check) {
    let began = Instant::now();
    let found = probe.look_up(host).await;
    let name = host.name.to_string();
    let check = match (&host.name, &found) {
        (HostName::Unix(_), _) => {
            let check = Check::ok("dns", "a Unix socket, nothing to look up");
            return (found.unwrap_or_default(), check);
        }
        (_, Ok(peers)) => {
            let addresses: Vec<_> = peers.iter().map(ip).collect();
            let summary = match host.address {
                Some(address) => format!("{address}: hostaddr is given, not looked up"),
                None => format!("{name}: {}", addresses.join(", ")),
            };
            Check::ok("dns", summary).fact("addresses", addresses)
        }
        (_, Err(error)) => {
            let summary = format!("{name} does not resolve");
            Check::failure("dns", summary, Finding::of(error))
        }
    };
    let check = check.fact("host", name).took(began.elapsed());
    (found.unwrap_or_default(), check)
}

fn ip(peer: &Peer) -> String {
    match peer.address() {
        Address::Tcp(address) => address.ip().to_string(),
        address => address.to_string(),
    }
}

/// Connects to every address at the same time. Returns the first that answers.
pub(crate) async fn reach(probe: &Probe, peers: &[Peer]) -> (Option<Peer>, Vec<Check>) {
    let mut attempts = JoinSet::new();
    for (at, peer) in peers.iter().cloned().enumerate() {
        let probe = probe.clone();
        attempts.spawn(async move {
            let began = Instant::now();
            (at, probe.reach(&peer).await, began.elapsed())
        });
    }
    let mut results = attempts.join_all().await;
    results.sort_by_key(|(at, ..)| *at);
    let first = results.iter().find(|(_, reached, _)| reached.is_ok());
    let first = first.map(|(at, ..)| peers[*at].clone());
    let checks = results.into_iter().map(|(at, reached, took)| {
        let check = reached_or_not(peers[at].address(), reached, first.is_some(), took);
        check.fact("address", peers[at].address().to_string())
    });
    (first.clone(), checks.collect())
}

fn reached_or_not(
    address: &Address,
    reached: Result<(), ConnectError>,
    another_answers: bool,
    took: Duration,
) -> Check {
    let Err(error) = reached else {
        return Check::ok("tcp", format!("{address} answers")).took(took);
    };
    // The system refuses at once, which costs the app nothing.
    if another_answers && is_without_ipv6(address, &error) {
        return Check::ok("tcp", format!("{address}: no IPv6 here")).took(took);
    }
    let (check, summary) = match error.diagnosis().code() {
        // The address was not even tried.
        "sslmode-weak" => (
            "tls",
            format!("none with {address}, and it is needed there"),
        ),
        _ => ("tcp", format!("{address} cannot be reached")),
    };
    let status = match another_answers {
        // The pool goes on to the next address: that costs the app time only.
        true => Status::Warning,
        false => Status::Failure,
    };
    let check = Check::ok(check, summary).took(took);
    check.found(status, Finding::of(&error))
}

fn is_without_ipv6(address: &Address, error: &ConnectError) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};

    let mut cause = error.source();
    while let Some(inner) = cause.filter(|cause| !cause.is::<io::Error>()) {
        cause = inner.source();
    }
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    matches!(address, Address::Tcp(address) if address.is_ipv6())
        && matches!(
            cause.map(io::Error::kind),
            Some(AddrNotAvailable | HostUnreachable | NetworkUnreachable)
        )
}

pub(crate) fn of(role: Role, mut check: Check) -> Check {
    check.endpoint = Some(role);
    check
}
