//! Taking a URL apart.

use percent_encoding::percent_decode_str;

use super::UrlError;

/// The URL's parts with their percent-encoding undone, not yet looked at.
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) hosts: String,
    pub(super) database: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

impl Parts {
    pub(super) fn split(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        if scheme != "postgres" && scheme != "postgresql" {
            return Err(UrlError::Scheme);
        }

        // `url` takes one host only, so the list is cut out first and looked at on its own.
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        let one_host = match userinfo {
            Some(userinfo) => format!("{scheme}://{userinfo}@host{tail}"),
            None => format!("{scheme}://host{tail}"),
        };
        let parsed = url::Url::parse(&one_host).map_err(|_| UrlError::Malformed)?;

        // An unencoded `/`, `?` or `#` in a password ends the authority too early: what follows must
        // not be taken for a database's or a parameter's name, and must not be shown.
        let swallowed = userinfo.is_none() && tail.contains('@');
        if swallowed || parsed.fragment().is_some() || parsed.path().contains('@') {
            return Err(UrlError::Malformed);
        }
        let path = parsed.path();
        let database = decode(path.strip_prefix('/').unwrap_or(path), "database name")?;
        let mut parameters = Vec::new();
        for pair in parsed.query().unwrap_or("").split('&') {
            if pair.is_empty() {
                continue;
            }
            let (key, value) = pair.split_once('=').ok_or(UrlError::Malformed)?;
            if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(UrlError::Malformed);
            }
            // Not form-encoding: libpq takes a `+` for a plus sign.
            parameters.push((key.to_owned(), decode(value, "query")?));
        }

        let not_empty = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            user: not_empty(decode(parsed.username(), "user name")?),
            password: match parsed.password() {
                Some(password) => not_empty(decode(password, "password")?),
                None => None,
            },
            hosts: hosts.to_owned(),
            database: not_empty(database),
            parameters,
        })
    }
}

/// Neon's console offers the URL inside `psql '…'`; people copy the whole line.
pub(super) fn strip_psql(url: &str) -> &str {
    let url = url.trim();
    let url = url.strip_prefix("psql ").map_or(url, str::trim);
    for quote in ['\'', '"'] {
        if let Some(inner) = url.strip_prefix(quote).and_then(|u| u.strip_suffix(quote)) {
            return inner;
        }
    }
    url
}

pub(super) fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(UrlError::NotUtf8 { part }),
    }
}
