//! Pooled or direct, and from one to the other.

use std::fmt;
use std::net::IpAddr;

use super::{DatabaseUrl, HostName, UrlError};

impl DatabaseUrl {
    /// Whether this URL leads to Neon's pooler (PgBouncer in transaction mode) or straight to
    /// Postgres.
    ///
    /// Pooled means that the first label of the host name ends in `-pooler`; where the host is a bare
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

    /// The same database without the pooler, for migrations, `LISTEN`, and session state.
    ///
    /// Only the `-pooler` of the endpoint's label goes (and of the `endpoint` option, which Neon wants
    /// to be equal). A URL that is direct already comes back as it is.
    pub fn direct(&self) -> Self {
        self.map_endpoint(|endpoint| endpoint.strip_suffix(POOLER).unwrap_or(endpoint).to_owned())
    }

    /// The same database through Neon's pooler.
    ///
    /// # Errors
    ///
    /// [`UrlError::NotAnEndpoint`] where a host is not a Neon endpoint (`ep-….<region>…`): nothing is
    /// known of its pooler.
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

    /// Whether every host has the name of a Neon endpoint that is not pooled: what is said of others
    /// is only known by asking.
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

/// What a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Endpoint {
    /// Postgres itself: sessions keep their state.
    Direct,
    /// PgBouncer in transaction mode: nothing of a session outlives a transaction.
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
