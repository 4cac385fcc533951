//! [`Routes`]: where requests go, and the connection strings that they carry.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};

use crate::url::{DatabaseUrl, HostName};

/// What the requests on one connection have in common.
pub(super) struct Route {
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    /// With the password, unless tokens take its place.
    pub(super) connection_string: HeaderValue,
}

/// The connection strings of a URL's hosts.
pub(super) struct Routes {
    url: DatabaseUrl,
    has_tokens: bool,
}

impl Routes {
    pub(super) fn new(url: DatabaseUrl, has_tokens: bool) -> Self {
        Self { url, has_tokens }
    }

    /// Returns the URL that is dialled.
    pub(super) fn dialled(&self) -> DatabaseUrl {
        match self.has_tokens {
            true => self.url.for_tokens(),
            false => self.url.clone(),
        }
    }

    pub(super) fn first_host(&self) -> &str {
        match self.url.hosts().first().map(|host| &host.name) {
            Some(HostName::Tcp(name)) => name,
            _ => "the host",
        }
    }

    /// Returns the route over a connection to the host `name`, whose Host header is given.
    pub(super) fn of(&self, name: &str, host_header: &str, is_tls: bool) -> Arc<Route> {
        let dialled = self.dialled();
        let mut hosts = dialled.hosts().iter().zip(self.url.hosts());
        let found = hosts.find_map(|(dialled, host)| match (&dialled.name, &host.name) {
            (HostName::Tcp(dialled), HostName::Tcp(host)) if dialled == name => Some(host.as_str()),
            _ => None,
        });
        let text = self
            .url
            .to_connection_string(found.unwrap_or(name), !self.has_tokens);
        // Everything is percent-encoded, or a host's name.
        let header =
            |text: &str| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let mut connection_string = header(&text);
        connection_string.set_sensitive(true);
        let scheme = if is_tls { "https" } else { "http" };
        let uri = format!("{scheme}://{host_header}{PATH}");
        Arc::new(Route {
            uri: uri.parse().unwrap_or_default(),
            host: header(host_header),
            connection_string,
        })
    }
}

/// The path that requests for SQL go to.
pub(super) const PATH: &str = "/sql";

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
