//! [`is_utc`]: what UTC is called.

/// Returns whether a server's `TimeZone` is UTC by one of its names, so that a connection need not set it.
pub fn is_utc(time_zone: &str) -> bool {
    NAMES
        .iter()
        .any(|name| name.eq_ignore_ascii_case(time_zone))
}

const NAMES: &[&str] = &[
    "UTC",
    "GMT",
    "Etc/UTC",
    "Etc/GMT",
    "UCT",
    "Etc/UCT",
    "Zulu",
    "Etc/Zulu",
    "Universal",
    "Etc/Universal",
    "Greenwich",
    "Etc/Greenwich",
    "GMT0",
    "Etc/GMT0",
];
