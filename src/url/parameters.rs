//! The parameters behind the `?`.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{LoadBalanceHosts, TargetSessionAttrs};

use super::parse::not_empty;
use super::tls::{Plaintext, RawSsl};
use super::{ChannelBinding, SslNegotiation, TransportMode, UrlError};

/// The parameters of the query; those that need the other parts of the URL to be understood are still text.
#[derive(Default)]
pub(super) struct RawParameters {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) dbname: Option<String>,
    pub(super) host: Option<String>,
    pub(super) hostaddr: Option<String>,
    pub(super) port: Option<String>,
    pub(super) ssl: RawSsl,
    pub(super) plaintext: Plaintext,
    pub(super) settings: Settings,
    pub(super) ignored: Vec<String>,
}

/// The parameters that go to the drivers as they are.
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
    pub(super) transport: Option<TransportMode>,
    pub(super) https_port: Option<u16>,
    pub(super) pipeline_login: Option<bool>,
}

impl RawParameters {
    pub(super) fn read(parameters: &[(String, String)]) -> Result<Self, UrlError> {
        let mut raw = Self::default();
        for (key, value) in parameters {
            raw.set(key, value)?;
        }
        Ok(raw)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), UrlError> {
        let text = || Some(value.to_owned());
        let set_text = || not_empty(value.to_owned());
        let settings = &mut self.settings;
        match key {
            // libpq would send an empty user name, which the server refuses.
            "user" if value.is_empty() => {
                return Err(UrlError::InvalidValue {
                    key: "user",
                    expected: "a name, or left out",
                });
            }
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
            // libpq has this alias for JDBC's URLs.
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
                    "direct" => SslNegotiation::Direct,
                    "postgres" => SslNegotiation::Postgres,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "sslnegotiation",
                            expected: "direct or postgres",
                        });
                    }
                });
            }
            "options" => settings.options = set_text(),
            "application_name" => settings.application_name = set_text(),
            // In libpq zero and less wait for ever; here the policy's own budget applies then.
            "connect_timeout" => settings.connect_timeout = seconds("connect_timeout", value)?,
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
                let on: i32 = number("keepalives", value, "0 or 1")?;
                settings.keepalives = Some(on != 0);
            }
            "keepalives_idle" => settings.keepalives_idle = seconds("keepalives_idle", value)?,
            "keepalives_interval" => {
                settings.keepalives_interval = seconds("keepalives_interval", value)?;
            }
            // `keepalives_retries` is tokio-postgres's name.
            "keepalives_count" | "keepalives_retries" => {
                let count = positive("keepalives_count", value, "a number of probes")?;
                settings.keepalives_count = count;
            }
            "tcp_user_timeout" => {
                let millis = positive("tcp_user_timeout", value, "a number of milliseconds")?;
                settings.tcp_user_timeout = millis.map(|n| Duration::from_millis(n.into()));
            }
            "transport" => settings.transport = Some(value.parse()?),
            "https_port" => {
                let port: u16 = number("https_port", value, PORT)?;
                if port == 0 {
                    return Err(UrlError::InvalidValue {
                        key: "https_port",
                        expected: PORT,
                    });
                }
                settings.https_port = Some(port);
            }
            "pipeline_login" => {
                settings.pipeline_login = Some(match value {
                    "true" => true,
                    "false" => false,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: "pipeline_login",
                            expected: "true or false",
                        });
                    }
                });
            }
            "client_encoding" if is_utf8(value) => {}
            "client_encoding" => {
                return Err(UrlError::InvalidValue {
                    key: "client_encoding",
                    expected: "UTF8",
                });
            }
            "gssencmode" if value != "require" => {}
            Plaintext::PARAMETER => {
                self.plaintext = match value {
                    "true" => Plaintext::PrivateNetwork,
                    "false" => Plaintext::Loopback,
                    _ => {
                        return Err(UrlError::InvalidValue {
                            key: Plaintext::PARAMETER,
                            expected: "true or false",
                        });
                    }
                };
            }
            "sslaccept" if value != "strict" => {
                return Err(UrlError::InvalidValue {
                    key: "sslaccept",
                    expected: "strict or left out: certificates are always verified",
                });
            }
            key if IGNORED.contains(&key) => self.ignored.push(key.to_owned()),
            key if UNSUPPORTED.contains(&key) => {
                return Err(UrlError::UnsupportedParameter {
                    key: key.to_owned(),
                });
            }
            key if self.password.is_some() || !is_name(key) => {
                return Err(UrlError::HiddenParameter);
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

/// Settings of other tools that do not change where and how to connect: Prisma's (`pgbouncer` and its
/// like), SQLAlchemy's and asyncpg's, pgx's, lib/pq's, JDBC's, node-postgres's, Supabase's.
const IGNORED: [&str; 20] = [
    "binary_parameters",
    "connection_limit",
    "default_query_exec_mode",
    "description_cache_capacity",
    "pgbouncer",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conns",
    "pool_min_conns",
    "pool_timeout",
    "preparedStatementCacheQueries",
    "prepareThreshold",
    "prepared_statement_cache_size",
    "schema",
    "socket_timeout",
    "sslaccept",
    "statement_cache_capacity",
    "statement_cache_size",
    "supa",
    "uselibpqcompat",
];

/// Parameters of libpq, and Prisma's `sslidentity`. To leave one out silently could weaken or redirect a
/// connection.
const UNSUPPORTED: [&str; 34] = [
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslidentity",
    "sslkey",
    "sslkeylogfile",
    "sslpassword",
    "sslsni",
    "authtype",
    "tty",
];

const PORT: &str = "a number from 1 to 65535";

fn is_utf8(value: &str) -> bool {
    ["utf8", "utf-8", "auto"]
        .iter()
        .any(|name| value.eq_ignore_ascii_case(name))
}

fn number<T: FromStr>(
    key: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, UrlError> {
    value
        .parse()
        .map_err(|_| UrlError::InvalidValue { key, expected })
}

/// Reads an integer as libpq does: it has 32 bits, and zero means the system's default.
fn positive(
    key: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<Option<u32>, UrlError> {
    let number: i32 = number(key, value, expected)?;
    Ok(u32::try_from(number).ok().filter(|number| *number > 0))
}

fn seconds(key: &'static str, value: &str) -> Result<Option<Duration>, UrlError> {
    let seconds = positive(key, value, "a number of seconds, at most 2147483647")?;
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
}

/// Returns whether `key` looks like a parameter's name, and not like a piece of the password.
fn is_name(key: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !key.is_empty() && key.bytes().all(is_part)
}
