//! The query's parameters.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{LoadBalanceHosts, TargetSessionAttrs};

use super::tls::RawSsl;
use super::{ChannelBinding, Negotiation, UrlError};

/// What may be set in the query, still as text where it needs the other parts to be understood.
#[derive(Default)]
pub(super) struct RawParameters {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) dbname: Option<String>,
    pub(super) host: Option<String>,
    pub(super) hostaddr: Option<String>,
    pub(super) port: Option<String>,
    pub(super) ssl: RawSsl,
    pub(super) settings: Settings,
}

/// Parameters that go to the drivers as they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) options: Option<String>,
    pub(super) application_name: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) target_session_attrs: Option<TargetSessionAttrs>,
    pub(super) load_balance_hosts: Option<LoadBalanceHosts>,
    pub(super) keepalives: Option<bool>,
    pub(super) keepalives_idle: Option<Duration>,
    pub(super) keepalives_interval: Option<Duration>,
    pub(super) keepalives_count: Option<u32>,
    pub(super) tcp_user_timeout: Option<Duration>,
}

impl RawParameters {
    pub(super) fn set(
        &mut self,
        key: &str,
        value: &str,
        ignored: &mut Vec<String>,
    ) -> Result<(), UrlError> {
        let text = || Some(value.to_owned());
        let settings = &mut self.settings;
        match key {
            "user" => self.user = text(),
            "password" => self.password = text(),
            "dbname" => self.dbname = text(),
            "host" => self.host = text(),
            "hostaddr" => self.hostaddr = text(),
            "port" => self.port = text(),
            "sslmode" => {
                const MODES: [&str; 6] = [
                    "disable",
                    "allow",
                    "prefer",
                    "require",
                    "verify-ca",
                    "verify-full",
                ];
                if !MODES.contains(&value) {
                    return Err(UrlError::InvalidValue {
                        key: "sslmode",
                        expected: "verify-full, verify-ca or require (on loopback also disable, \
                                   allow or prefer)",
                    });
                }
                self.ssl.mode = text();
            }
            // libpq's own alias, from JDBC.
            "ssl" if value == "true" => self.ssl.mode = Some("require".to_owned()),
            "ssl" => {
                return Err(UrlError::InvalidValue {
                    key: "ssl",
                    expected: "true",
                });
            }
            "sslrootcert" => self.ssl.roots = text(),
            "channel_binding" => {
                self.ssl.channel_binding = Some(match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "channel_binding",
                            expected: "disable, prefer or require",
                        });
                    }
                });
            }
            "sslnegotiation" => {
                self.ssl.negotiation = Some(match value {
                    "direct" => Negotiation::Direct,
                    "postgres" => Negotiation::Postgres,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "sslnegotiation",
                            expected: "direct or postgres",
                        });
                    }
                });
            }
            "options" => settings.options = text(),
            "application_name" => settings.application_name = text(),
            "connect_timeout" => {
                let seconds: i64 = number("connect_timeout", value, "a number of seconds")?;
                // libpq: zero and less wait for ever, which here means the policy's own budget.
                settings.connect_timeout = u64::try_from(seconds)
                    .ok()
                    .filter(|s| *s > 0)
                    .map(Duration::from_secs);
            }
            "target_session_attrs" => {
                settings.target_session_attrs = Some(match value {
                    "any" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "target_session_attrs",
                            expected: "any, read-write, read-only, primary or standby",
                        });
                    }
                });
            }
            "load_balance_hosts" => {
                settings.load_balance_hosts = Some(match value {
                    "disable" => LoadBalanceHosts::Disable,
                    "random" => LoadBalanceHosts::Random,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "load_balance_hosts",
                            expected: "disable or random",
                        });
                    }
                });
            }
            "keepalives" => {
                settings.keepalives = Some(match value {
                    "0" => false,
                    "1" => true,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "keepalives",
                            expected: "0 or 1",
                        });
                    }
                });
            }
            "keepalives_idle" => settings.keepalives_idle = seconds("keepalives_idle", value)?,
            "keepalives_interval" => {
                settings.keepalives_interval = seconds("keepalives_interval", value)?;
            }
            "keepalives_count" => {
                let count: u32 = number("keepalives_count", value, "a number of probes")?;
                settings.keepalives_count = (count > 0).then_some(count);
            }
            "tcp_user_timeout" => {
                let millis: u64 = number("tcp_user_timeout", value, "a number of milliseconds")?;
                settings.tcp_user_timeout = (millis > 0).then_some(Duration::from_millis(millis));
            }
            "client_encoding" if is_utf8(value) => {}
            "client_encoding" => {
                return Err(UrlError::InvalidValue {
                    key: "client_encoding",
                    expected: "UTF8",
                });
            }
            "gssencmode" if value != "require" => {}
            key if ORM_PARAMETERS.contains(&key) => ignored.push(key.to_owned()),
            key if UNSUPPORTED.contains(&key) => {
                return Err(UrlError::UnsupportedParameter {
                    key: key.to_owned(),
                });
            }
            key => {
                return Err(UrlError::UnknownParameter {
                    key: key.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Prisma's, SQLAlchemy's and their like's settings that URLs from a dashboard carry.
const ORM_PARAMETERS: [&str; 6] = [
    "connection_limit",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "socket_timeout",
    "statement_cache_size",
];

/// libpq knows these; leaving one of them out silently could weaken or redirect a connection.
const UNSUPPORTED: [&str; 24] = [
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslsni",
];

fn is_utf8(value: &str) -> bool {
    ["utf8", "utf-8", "auto"]
        .iter()
        .any(|name| value.eq_ignore_ascii_case(name))
}

pub(super) fn number<T: FromStr>(
    key: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, UrlError> {
    value
        .parse()
        .map_err(|_| UrlError::InvalidValue { key, expected })
}

/// Zero means the system's default, in libpq.
fn seconds(key: &'static str, value: &str) -> Result<Option<Duration>, UrlError> {
    let seconds: u64 = number(key, value, "a number of seconds")?;
    Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
}
