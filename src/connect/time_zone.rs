//! [`is_utc`]: the names of UTC.

/// Returns whether a server's setting `TimeZone` is one of the names of UTC.
pub(crate) fn is_utc(time_zone: &str) -> bool {
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
