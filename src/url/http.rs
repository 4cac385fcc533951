//! A URL for requests over HTTPS.

use tokio_postgres::config::TargetSessionAttrs;

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

    /// Returns the same URL at the hosts where Neon takes tokens in place of passwords.
    pub(crate) fn for_tokens(&self) -> Self {
        let mut url = self.clone();
        for host in &mut url.hosts {
            if let HostName::Tcp(name) = &mut host.name {
                if let Some((_, region)) = name.split_once('.') {
                    *name = format!("apiauth.{region}");
                }
            }
        }
        url
    }
}
