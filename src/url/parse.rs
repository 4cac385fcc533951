//! [`Parts`]: a URL taken apart at the same places as by libpq's `conninfo_uri_parse_options`.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use super::UrlError;
use super::network::has_zone;

/// The parts of a URL with their percent-encoding undone, not yet checked.
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// `hosts` and `ports` have one item for each element of the list of hosts, which may be empty.
    pub(super) hosts: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) database: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

impl Parts {
    pub(super) fn split(url: &str) -> Result<Self, UrlError> {
        let url = strip_psql(url)?;
        let rest = ["postgresql://", "postgres://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or(UrlError::Scheme)?;
        let (userinfo, rest) = match rest.find(['@', '/']) {
            Some(end) if rest[end..].starts_with('@') => (&rest[..end], &rest[end + 1..]),
            _ => ("", rest),
        };
        // Other programs end the password elsewhere. The rest may be half a password, so that no error may
        // show it as the name of a parameter.
        if userinfo.contains(['?', '#']) || rest.contains('@') {
            return Err(UrlError::Malformed);
        }
        if ["&amp;", "&#38;", "&#x26;"]
            .iter()
            .any(|html| rest.contains(html))
        {
            return Err(UrlError::Html);
        }
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }

        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let user = decode(user, "user name")?;
        let password = decode(password, "password")?;
        let (hosts, ports) = match authority {
            "" => Ok((Vec::new(), Vec::new())),
            list => list.split(',').map(host_and_port).collect(),
        }?;
        Ok(Self {
            user: not_empty(user),
            password: not_empty(password),
            hosts,
            ports,
            database: not_empty(decode(database, "database name")?),
            parameters: parameters(query)?,
        })
    }
}

pub(super) fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Undoes percent-encoding; errors call the text `part`.
fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    // libpq accepts blanks and control characters before version 17 and refuses them since.
    if text
        .bytes()
        .any(|byte| byte == b' ' || byte.is_ascii_control())
    {
        return Err(UrlError::Whitespace { part });
    }
    for (i, _) in text.match_indices('%') {
        match text.as_bytes().get(i + 1..i + 3) {
            Some(b"00") => return Err(UrlError::ZeroByte { part }),
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(UrlError::Percent { part }),
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(UrlError::NotUtf8 { part }),
    }
}

/// Splits an element of the list of hosts. Errors never quote it: it may be half a password.
fn host_and_port(text: &str) -> Result<(String, String), UrlError> {
    let is_ipv6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();

    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(UrlError::Ipv6)?;
            if has_zone(address) {
                return Err(UrlError::ZoneId);
            }
            let port = match port {
                "" => Some(""),
                port => port.strip_prefix(':'),
            };
            match port {
                Some(port) if is_ipv6(address) => (address, port),
                _ => return Err(UrlError::Ipv6),
            }
        }
        None if has_zone(text) => return Err(UrlError::ZoneId),
        None if is_ipv6(text) => return Err(UrlError::Ipv6),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let (host, port) = (decode(host, "host")?, decode(port, "port")?);
    // The port comes before the parameters: errors show a parameter's name, and it could belong to a password.
    if !port.is_empty() && port.parse::<u16>().is_err() {
        return Err(UrlError::Port);
    }
    Ok((host, port))
}

fn parameters(mut query: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut parameters = Vec::new();
    while !query.is_empty() {
        let (pair, rest) = query.split_once('&').unwrap_or((query, ""));
        query = rest;
        let (key, value) = pair.split_once('=').ok_or(UrlError::NoValue)?;
        if value.contains('=') {
            return Err(UrlError::EqualsSign);
        }
        // To libpq a `+` is a plus sign, as this is no form-encoding.
        let key = decode(key, "name of a parameter")?;
        parameters.push((key, decode(value, "value of a parameter")?));
    }
    Ok(parameters)
}

/// Takes off the `psql '…'` in which Neon's console offers the URL: people copy the whole line.
fn strip_psql(text: &str) -> Result<&str, UrlError> {
    let text = text.trim();
    let command = text
        .strip_prefix("psql")
        .filter(|rest| rest.starts_with([' ', '\t']));
    let word = command.unwrap_or(text).trim_start();
    let (url, rest) = match word.chars().next() {
        Some(quote @ ('\'' | '"')) => word[1..].split_once(quote).ok_or(UrlError::Quote)?,
        _ if command.is_some() => word.split_once(char::is_whitespace).unwrap_or((word, "")),
        _ => (word, ""),
    };
    match rest.trim() {
        "" => Ok(url.trim()),
        _ => Err(UrlError::MoreWords),
    }
}
