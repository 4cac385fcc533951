//! The meaning of a URL, as diesel-neon and as libpq understand it.

use std::net::IpAddr;

use diesel_neon::{DatabaseUrl, HostName};
use libpq_check::Parameters;
use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

/// The meaning of a URL, as the drivers act on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// Name or folder, `hostaddr`, port.
    pub(crate) hosts: Vec<(String, Option<IpAddr>, u16)>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    options: Option<String>,
    application_name: Option<String>,
    connect_timeout: Option<u64>,
    target_session_attrs: TargetSessionAttrs,
    requires_channel_binding: bool,
    keepalives: bool,
    keepalives_idle: u64,
    keepalives_count: Option<u64>,
    tcp_user_timeout: u64,
}

pub(crate) fn ours(url: &DatabaseUrl) -> Meaning {
    let config = url.to_tokio_postgres();
    let hosts = url.hosts().iter().map(|host| {
        let name = match &host.name {
            HostName::Tcp(name) => name.clone(),
            HostName::Unix(path) => path.display().to_string(),
            other => panic!("libpq has no {other:?}"),
        };
        (name, host.address, host.port)
    });
    Meaning {
        hosts: hosts.collect(),
        user: url.user().map(str::to_owned),
        password: url.password().map(str::to_owned),
        database: url.database().map(str::to_owned),
        options: config.get_options().map(str::to_owned),
        application_name: config.get_application_name().map(str::to_owned),
        connect_timeout: url.connect_timeout().map(|timeout| timeout.as_secs()),
        target_session_attrs: config.get_target_session_attrs(),
        requires_channel_binding: config.get_channel_binding() == ChannelBinding::Require,
        keepalives: config.get_keepalives(),
        keepalives_idle: config.get_keepalives_idle().as_secs(),
        keepalives_count: config.get_keepalives_retries().map(u64::from),
        tcp_user_timeout: config
            .get_tcp_user_timeout()
            .map_or(0, |t| t.as_millis() as u64),
    }
}

/// Returns what libpq makes of a URL, or an error that libpq would raise only on connecting.
pub(crate) fn theirs(set: &Parameters) -> Result<Meaning, String> {
    let text = |key: &str| -> Result<Option<String>, String> {
        let value = set.get(key).filter(|value| !value.is_empty()).cloned();
        value
            .map(|value| String::from_utf8(value).map_err(|_| format!("{key} is not UTF-8")))
            .transpose()
    };
    let number = |key: &str| -> Result<Option<i32>, String> {
        let value = text(key)?.map(|value| value.trim_ascii().parse());
        value
            .transpose()
            .map_err(|_| format!("invalid integer for {key}"))
    };
    // If libpq leaves a parameter to the system, diesel-neon has a default of its own.
    let silent = ours(&DatabaseUrl::parse("postgresql://h.example").unwrap());
    let positive = |key: &str, default: u64| -> Result<u64, String> {
        let set = number(key)?.and_then(|number| u64::try_from(number).ok());
        Ok(set.filter(|number| *number > 0).unwrap_or(default))
    };
    Ok(Meaning {
        hosts: their_hosts(text("host")?, text("hostaddr")?, text("port")?)?,
        user: text("user")?,
        password: text("password")?,
        database: text("dbname")?,
        options: text("options")?,
        application_name: text("application_name")?.or(silent.application_name),
        connect_timeout: Some(positive("connect_timeout", 0)?).filter(|seconds| *seconds > 0),
        target_session_attrs: match text("target_session_attrs")?.as_deref() {
            None | Some("any") => TargetSessionAttrs::Any,
            Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
            Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
            Some(other) => return Err(format!("target_session_attrs {other}")),
        },
        requires_channel_binding: text("channel_binding")?.as_deref() == Some("require"),
        keepalives: number("keepalives")?.map_or(silent.keepalives, |on| on != 0),
        keepalives_idle: positive("keepalives_idle", silent.keepalives_idle)?,
        keepalives_count: Some(positive(
            "keepalives_count",
            silent.keepalives_count.unwrap(),
        )?),
        tcp_user_timeout: positive("tcp_user_timeout", silent.tcp_user_timeout)?,
    })
}

/// Combines the three lists as `connectOptions2` and `PQconnectPoll` do.
fn their_hosts(
    names: Option<String>,
    addresses: Option<String>,
    ports: Option<String>,
) -> Result<Vec<(String, Option<IpAddr>, u16)>, String> {
    let list = |text: Option<String>| -> Vec<String> {
        text.map_or(Vec::new(), |text| {
            text.split(',').map(str::to_owned).collect()
        })
    };
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    let count = match addresses.len() {
        0 => names.len().max(1),
        count => count,
    };
    for (what, found) in [("names", names.len()), ("ports", ports.len())] {
        let fits = found == 0 || found == count || (what == "ports" && found == 1);
        if !fits {
            return Err(format!("{found} {what} for {count} hosts"));
        }
    }
    let host = |i: usize| {
        let address = addresses.get(i).filter(|text| !text.is_empty());
        let address = address.map(|text| text.parse().map_err(|_| format!("address {text}")));
        let address: Option<IpAddr> = address.transpose()?;
        let name = match (names.get(i).filter(|name| !name.is_empty()), address) {
            (Some(folder), _) if folder.starts_with('/') => folder.clone(),
            (Some(name), _) => name.to_ascii_lowercase(),
            (None, Some(address)) => address.to_string(),
            (None, None) => return Err("the default host".to_owned()),
        };
        let port = ports
            .get(i)
            .or(ports.first())
            .filter(|port| !port.is_empty());
        let port = port.map_or(Ok(5432), |port| port.trim_ascii().parse::<u16>());
        match port {
            Ok(port) if port > 0 => Ok((name, address, port)),
            _ => Err("invalid port number".to_owned()),
        }
    };
    (0..count).map(host).collect()
}
