//! What the text of a host or an address tells of the network behind it.

use std::net::{IpAddr, Ipv6Addr};

pub(super) fn is_neon(name: &str) -> bool {
    name.ends_with(".neon.tech")
}

pub(super) fn is_loopback(address: IpAddr) -> bool {
    // ::ffff:127.0.0.1 is dialled as 127.0.0.1.
    address.to_canonical().is_loopback()
}

/// Returns whether the address is one of RFC 1918, of RFC 4193, or link-local.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Returns whether the text is an IPv6 address with a zone, as in `fe80::1%eth0`.
pub(super) fn has_zone(text: &str) -> bool {
    text.split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
}
