//! A URL for requests over HTTPS.

use tokio_postgres::config::TargetSessionAttrs;

use super::network::is_neon;
use super::render::encode;
use super::{ChannelBinding, DatabaseUrl, Encryption, Host, HostName, UrlError};

impl DatabaseUrl {
    /// Checks that requests over HTTPS can mean what the URL says: they have no session, and their credentials are in the
    /// request itself.
    pub(crate) fn check_http(&self) -> Result<(), UrlError> {
        if self.hosts.iter().any(Host::is_unix) {
            return Err(UrlError::InvalidValue {
                key: "host",
                expected: "a host's name or address for requests over HTTPS, not a Unix socket's folder",
            });
        }
        if let Encryption::Tls {
            channel_binding: ChannelBinding::Require,
            ..
        } = self.encryption
        {
            return Err(UrlError::InvalidValue {
                key: "channel_binding",
                expected: "prefer or left out for requests over HTTPS, where the server gets the password itself within the \
                           verified TLS",
            });
        }
        if let Some(endpoint) = self.endpoint_option() {
            let is_its = |host: &Host| matches!(&host.name, HostName::Tcp(name) if name.split('.').next() == Some(endpoint));
            if !self.hosts.iter().all(is_its) {
                return Err(UrlError::InvalidValue {
                    key: "options",
                    expected: "an endpoint that the host's name begins with, for requests over HTTPS: the server goes by the \
                               host alone",
                });
            }
        }
        let options = self.settings.options.as_deref().unwrap_or_default();
        let has_settings = options.split_ascii_whitespace().any(|word| {
            !["endpoint=", "project="]
                .iter()
                .any(|key| word.starts_with(key))
        });
        let is_picky = self
            .settings
            .target_session_attrs
            .is_some_and(|attrs| attrs != TargetSessionAttrs::Any);
        for (is_set, key) in [
            (has_settings, "options"),
            (is_picky, "target_session_attrs"),
        ] {
            if is_set {
                let expected = "left out for requests over HTTPS, which have no session";
                return Err(UrlError::InvalidValue { key, expected });
            }
        }
        Ok(())
    }

    /// Checks that requests with tokens can reach each of the hosts.
    pub(crate) fn check_tokens(&self) -> Result<(), UrlError> {
        let dialled = self.for_tokens();
        for (index, host) in dialled.hosts.iter().enumerate() {
            let same = |other: &usize| dialled.hosts[*other].name == host.name;
            let is_other = |other: &usize| self.hosts[*other].name != self.hosts[index].name;
            if (0..index).filter(same).any(|other| is_other(&other)) {
                return Err(UrlError::InvalidValue {
                    key: "host",
                    expected: "one host in each region for requests with tokens, which go to a region's own host",
                });
            }
        }
        Ok(())
    }

    /// Returns the connection string of a request that goes to `host`.
    pub(crate) fn to_connection_string(&self, host: &str, with_password: bool) -> String {
        let user = encode(self.user.as_deref().unwrap_or_default());
        let password = self.password.as_deref().filter(|_| with_password);
        let password = password.map_or(String::new(), |password| format!(":{}", encode(password)));
        let database = self.database.as_deref().or(self.user.as_deref());
        let database = encode(database.unwrap_or_default());
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        format!("postgresql://{user}{password}@{host}/{database}")
    }

    /// Returns the same URL at the hosts where Neon takes tokens in place of passwords; a host with another name than Neon's is
    /// left as it is.
    pub(crate) fn for_tokens(&self) -> Self {
        let mut url = self.clone();
        for host in &mut url.hosts {
            if let HostName::Tcp(name) = &mut host.name {
                let is_endpoint = is_neon(name) || name.starts_with("ep-");
                if let Some((_, region)) = name.split_once('.').filter(|_| is_endpoint) {
                    *name = format!("apiauth.{region}");
                }
            }
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_neons_own_hosts() {
        for (host, dialled) in [
            ("ep-a-1.eu.aws.neon.tech", "apiauth.eu.aws.neon.tech"),
            ("api.eu.aws.neon.tech", "apiauth.eu.aws.neon.tech"),
            ("ep-a-1.localtest.me", "apiauth.localtest.me"),
            ("127.0.0.1", "127.0.0.1"),
            ("db.example.com", "db.example.com"),
            ("localhost", "localhost"),
        ] {
            let url = DatabaseUrl::parse(&format!("postgresql://u@{host}/d")).unwrap();
            let name = url.for_tokens().hosts[0].name.to_string();
            assert_eq!(name, dialled);
        }
    }
}
