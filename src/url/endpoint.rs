//! [`Endpoint`]: whether a URL leads to the pooler, and how it is turned into the other kind.

use std::fmt;
use std::net::IpAddr;

use super::{DatabaseUrl, HostName, UrlError};

impl DatabaseUrl {
    /// Returns whether this URL leads to Neon's pooler (PgBouncer in transaction mode) or straight to
    /// Postgres.
    ///
    /// Pooled means that the first label of the host name ends in `-pooler`. If the host is a bare
    /// address, the `endpoint` option decides.
    pub fn endpoint(&self) -> Endpoint {
        let pooled = self.hosts.iter().any(|host| match &host.name {
            HostName::Tcp(name) if name.parse::<IpAddr>().is_err() => {
                first_label(name).ends_with(POOLER)
            }
            _ => self
                .endpoint_option()
                .is_some_and(|endpoint| endpoint.ends_with(POOLER)),
        });
        if pooled {
            Endpoint::Pooled
        } else {
            Endpoint::Direct
        }
    }

    /// Returns the URL of the same database without the pooler, for migrations, `LISTEN`, and session state.
    ///
    /// Removes the `-pooler` of the endpoint's label, and of the `endpoint` option, which Neon wants to be
    /// equal. Returns a direct URL unchanged.
    pub fn direct(&self) -> Self {
        self.map_endpoint(|endpoint| endpoint.strip_suffix(POOLER).unwrap_or(endpoint).to_owned())
    }

    /// Returns the URL of the same database through Neon's pooler.
    ///
    /// # Errors
    ///
    /// Returns [`UrlError::NotAnEndpoint`] if a host is not a Neon endpoint (`ep-….<region>…`), because
    /// the name of its pooler is not known.
    pub fn pooled(&self) -> Result<Self, UrlError> {
        for host in &self.hosts {
            let is_endpoint = match &host.name {
                HostName::Tcp(name) if name.parse::<IpAddr>().is_err() => {
                    name.starts_with("ep-") && name.contains('.')
                }
                HostName::Tcp(_) => self.endpoint_option().is_some(),
                HostName::Unix(_) => false,
            };
            if !is_endpoint {
                return Err(UrlError::NotAnEndpoint {
                    host: host.name.to_string(),
                });
            }
        }
        Ok(
            self.map_endpoint(|endpoint| match endpoint.ends_with(POOLER) {
                true => endpoint.to_owned(),
                false => format!("{endpoint}{POOLER}"),
            }),
        )
    }

    /// Returns whether every host has the name of a direct Neon endpoint. Any other host may be a pooler,
    /// which only a query can tell.
    pub(crate) fn is_direct_by_name(&self) -> bool {
        self.endpoint() == Endpoint::Direct
            && self.hosts.iter().all(|host| {
                host.is_neon()
                    || matches!(&host.name, HostName::Tcp(name) if name.starts_with("ep-") && name.contains('.'))
            })
    }

    /// Returns the value of `endpoint=` (or its older name, `project=`) in `options`.
    pub(crate) fn endpoint_option(&self) -> Option<&str> {
        self.settings
            .options
            .as_deref()?
            .split_ascii_whitespace()
            .find_map(|word| {
                ENDPOINT_OPTIONS
                    .iter()
                    .find_map(|key| word.strip_prefix(key))
            })
    }

    fn map_endpoint(&self, map: impl Fn(&str) -> String) -> Self {
        let mut url = self.clone();
        for host in &mut url.hosts {
            if let HostName::Tcp(name) = &mut host.name {
                if name.parse::<IpAddr>().is_err() {
                    let label = first_label(name);
                    *name = format!("{}{}", map(label), &name[label.len()..]);
                }
            }
        }
        if let Some(options) = &mut url.settings.options {
            let words = options.split(' ').map(|word| {
                let key = ENDPOINT_OPTIONS.iter().find(|key| word.starts_with(*key));
                match key {
                    Some(key) => format!("{key}{}", map(&word[key.len()..])),
                    None => word.to_owned(),
                }
            });
            *options = words.collect::<Vec<_>>().join(" ");
        }
        url
    }
}

/// The kind of endpoint that a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Endpoint {
    /// Postgres itself: sessions keep their state.
    Direct,
    /// PgBouncer in transaction mode: session state ends with each transaction.
    Pooled,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Pooled => "pooled",
        })
    }
}

const POOLER: &str = "-pooler";
const ENDPOINT_OPTIONS: [&str; 2] = ["endpoint=", "project="];

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
