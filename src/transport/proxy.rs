//! [`Proxy`]: an HTTP proxy on the way to port 443, and how it is asked for a tunnel.

use std::fmt;
use std::io;

use bytes::BytesMut;
use http::Uri;
use http::uri::Authority;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::http_head::HttpHead;

/// The proxies of the environment: `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
pub(super) struct Proxies {
    matcher: Matcher,
    /// What goes through a proxy if there is one.
    not_excluded: Matcher,
    /// The variable that names the proxy, if its value cannot be read.
    unreadable: Option<&'static str>,
}

impl Proxies {
    /// Reads the environment for connections to this `port`. An empty variable counts as none.
    pub(super) fn from_env(port: u16) -> Self {
        let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let value = |name| std::env::var(name).unwrap_or_default();
        let variable = VARIABLES.into_iter().find(set);
        let no_proxy = NO_VARIABLES.into_iter().find(set).map(value);
        Self::new(
            variable.map(|name| (name, value(name))),
            &no_proxy.unwrap_or_default(),
            port,
        )
    }

    /// Takes the `variable` that names the proxy and its value, and that of `NO_PROXY`.
    fn new(variable: Option<(&'static str, String)>, no_proxy: &str, port: u16) -> Self {
        let is_wanted = !no_proxy.split(',').any(|entry| entry.trim() == "*");
        let no_proxy = without_ports(no_proxy, port);
        let (name, value) = variable.filter(|_| is_wanted).unzip();
        let proxy = |value: &str| Matcher::builder().https(value).no(&*no_proxy).build();
        let alone = Matcher::builder().https(value.as_deref().unwrap_or_default());
        let is_readable = alone
            .build()
            .intercept(&Uri::from_static("https://h.example/"));
        Self {
            matcher: proxy(value.as_deref().unwrap_or_default()),
            not_excluded: proxy("http://proxy.invalid"),
            unreadable: name.filter(|_| is_readable.is_none()),
        }
    }

    /// Returns the proxy for a host, if it has one.
    pub(super) fn proxy_for(&self, host: &str, port: u16) -> Result<Option<Proxy>, ProxyError> {
        let target = format!("https://{}/", authority(host, port));
        let found = target.parse::<Uri>().ok();
        let Some(found) = found.and_then(|target| self.matcher.intercept(&target)) else {
            return match self.unreadable {
                Some(variable) if self.would_intercept(&target) => {
                    Err(ProxyError::Unreadable(variable))
                }
                _ => Ok(None),
            };
        };
        let uri = found.uri();
        let name = uri.host().unwrap_or_default();
        let is_odd = |authority: &Authority| {
            let text = authority.as_str();
            text.contains('@') || (text.len() > name.len() && authority.port_u16().is_none())
        };
        if uri.authority().is_some_and(is_odd) {
            return Err(ProxyError::Unreadable("HTTPS_PROXY or ALL_PROXY"));
        }
        let (is_tls, default) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            scheme => {
                return Err(ProxyError::Scheme(scheme.unwrap_or_default().to_owned()));
            }
        };
        let authorization = found.basic_auth().and_then(|value| value.to_str().ok());
        Ok(Some(Proxy {
            host: name
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: uri.port_u16().unwrap_or(default),
            is_tls,
            authorization: authorization.map(|value| Secret(value.to_owned())),
        }))
    }
}

impl Proxies {
    /// Returns whether NO_PROXY leaves a target to a proxy.
    fn would_intercept(&self, target: &str) -> bool {
        let target = target.parse::<Uri>();
        target.is_ok_and(|target| self.not_excluded.intercept(&target).is_some())
    }
}

/// Returns NO_PROXY without ports, and without what is for another port; addresses of IPv6 lose their brackets.
fn without_ports(no_proxy: &str, port: u16) -> String {
    let hosts = no_proxy.split(',').filter_map(|entry| {
        let entry = entry.trim();
        let (host, of_port) = match entry.rsplit_once(':') {
            // More colons without brackets are those of an address.
            Some((host, number)) if host.ends_with(']') || !host.contains(':') => {
                (host, number.parse().ok())
            }
            _ => (entry, Some(port)),
        };
        (of_port == Some(port)).then(|| host.trim_matches(['[', ']']))
    });
    hosts.collect::<Vec<_>>().join(",")
}

impl fmt::Debug for Proxies {
    /// Leaves the proxies' URLs out: a password that is not encoded may have been taken for a host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

/// The variables that name the proxy for `https`, the first that is set wins.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Those that name hosts without a proxy.
const NO_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the proxy itself is reached through TLS.
    pub(super) is_tls: bool,
    authorization: Option<Secret>,
}

/// The value of a header that no one may read.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Proxy {
    /// Has the proxy open a tunnel to a host. What follows on `stream` is between the client and that host.
    pub(super) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        host: &str,
        port: u16,
    ) -> Result<(), ProxyError> {
        let target = authority(host, port);
        let authorization = match &self.authorization {
            Some(Secret(value)) => format!("Proxy-Authorization: {value}\r\n"),
            None => String::new(),
        };
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut input = BytesMut::new();
        loop {
            if stream.read_buf(&mut input).await? == 0 {
                return Err(ProxyError::Closed);
            }
            let head = HttpHead::take(&mut input).map_err(|_| ProxyError::NotHttp)?;
            let Some(head) = head else { continue };
            return match head.status {
                // The host speaks second: bytes behind the head are not its own.
                200..=299 if input.is_empty() => Ok(()),
                200..=299 => Err(ProxyError::NotHttp),
                407 => Err(ProxyError::Credentials {
                    were_given: self.authorization.is_some(),
                }),
                status => Err(ProxyError::Refused {
                    status,
                    words: head.words(&input),
                }),
            };
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

/// Returns a host and a port as HTTP writes them.
pub(super) fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A proxy opens no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("it demands {}", match were_given {
        true => "other credentials than those in HTTPS_PROXY",
        false => "credentials, and HTTPS_PROXY has none",
    })]
    Credentials { were_given: bool },
    #[error("it answered {words}")]
    Refused { status: u16, words: String },
    #[error("it closed the connection")]
    Closed,
    #[error("its answer is not HTTP/1.1's")]
    NotHttp,
    #[error(
        "{0} is not a proxy's URL: percent-encode what is special in the user name and the password"
    )]
    Unreadable(&'static str),
    #[error("TLS with it failed")]
    Tls(#[source] io::Error),
    #[error("its name cannot be resolved, or it does not answer")]
    Unreached(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("proxies of the kind {0}:// are not supported, only http:// and https://")]
    Scheme(String),
    #[error("the connection to it failed")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(https: &str, no: &str) -> Proxies {
        let variable = (!https.is_empty()).then(|| ("HTTPS_PROXY", https.to_owned()));
        Proxies::new(variable, no, 443)
    }

    #[test]
    fn a_host_without_a_proxy_needs_none_that_can_be_read() {
        for text in [
            "::::",
            "ftp://p",
            "http://user:ge@heim@p:1",
            "http://user:ge/heim@p:1",
        ] {
            let proxies = proxies(text, "db.example");
            assert_eq!(proxies.proxy_for("db.example", 443).unwrap(), None);
            let other = proxies.proxy_for("h.example", 443);
            assert!(matches!(other, Err(ProxyError::Unreadable(_))), "{other:?}");
        }
    }

    #[test]
    fn hosts_without_a_proxy_are_named_with_or_without_a_port() {
        for (host, no, is_excluded) in [
            ("db.example", "a, db.example:443", true),
            ("db.example", "db.example:5432", false),
            ("db.example", "db.example:x", false),
            ("db.example", "a,*", true),
            ("10.1.2.3", "*", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("10.1.2.3", "10.1.2.3:443", true),
            ("10.1.2.3", "10.1.2.3:80", false),
            ("::1", "::1", true),
            ("::1", "[::1]", true),
            ("::1", "[::1]:443", true),
            ("::1", "[::1]:80", false),
            ("::1", "::/0", true),
        ] {
            let found = proxies("http://p", no).proxy_for(host, 443).unwrap();
            assert_eq!(found.is_none(), is_excluded, "{host} {no}");
        }
    }

    #[test]
    fn a_proxy_is_read_as_curl_reads_it() {
        let host = "ep-a-1.eu.aws.neon.tech";
        for (text, name, port, is_tls) in [
            ("http://proxy.example:3128", "proxy.example", 3128, false),
            ("proxy.example", "proxy.example", 80, false),
            ("https://proxy.example", "proxy.example", 443, true),
            ("http://[::1]:8080/", "::1", 8080, false),
        ] {
            let proxy = proxies(text, "").proxy_for(host, 443).unwrap().unwrap();
            let found = (proxy.host.as_str(), proxy.port, proxy.is_tls);
            assert_eq!(found, (name, port, is_tls), "{text}");
            assert_eq!(proxy.authorization, None);
        }
        for no in ["*", "neon.tech", ".neon.tech", host] {
            assert_eq!(
                proxies("http://p", no).proxy_for(host, 443).unwrap(),
                None,
                "{no}"
            );
        }
        assert_eq!(proxies("", "").proxy_for(host, 443).unwrap(), None);
        let socks = proxies("socks5://p:1080", "").proxy_for(host, 443);
        assert!(matches!(socks, Err(ProxyError::Scheme(scheme)) if scheme == "socks5"));
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let proxies = proxies("http://user:geheim@p:1", "");
        let proxy = proxies.proxy_for("h.example", 443).unwrap().unwrap();
        assert_eq!(
            proxy.authorization,
            Some(Secret("Basic dXNlcjpnZWhlaW0=".to_owned()))
        );
        let shown = format!("{proxy:?} {proxy} {proxies:?}");
        assert!(
            !shown.contains("geheim") && !shown.contains("dXNl"),
            "{shown}"
        );
    }

    async fn ask(answer: &str) -> (String, Result<(), ProxyError>) {
        let proxy = proxies("http://a:b@p:1", "")
            .proxy_for("h", 443)
            .unwrap()
            .unwrap();
        let (mut near, mut far) = tokio::io::duplex(1024);
        let serve = async {
            let mut request = vec![0; 1024];
            let length = far.read(&mut request).await.unwrap();
            for piece in answer.as_bytes().chunks(7) {
                far.write_all(piece).await.unwrap();
            }
            drop(far);
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        let (request, result) = futures_util::join!(serve, proxy.tunnel(&mut near, "::1", 443));
        (request, result)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_each_refusal_is_told() {
        let (request, result) = ask("HTTP/1.1 200 Connection established\r\n\r\n").await;
        result.unwrap();
        assert_eq!(
            request,
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic YTpi\r\n\r\n"
        );
        for (answer, words) in [
            ("HTTP/1.1 407 Who?\r\n\r\n", "it demands other credentials"),
            (
                "HTTP/1.1 403 Forbidden\r\n\r\nnot there",
                "it answered 403 Forbidden",
            ),
            ("HTTP/1.1 200 OK\r\n", "it closed the connection"),
            ("", "it closed the connection"),
            ("220 smtp.example\r\n", "its answer is not HTTP"),
            ("HTTP/1.1 200 OK\r\n\r\nx", "its answer is not HTTP"),
        ] {
            let (_, result) = ask(answer).await;
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(words), "{answer:?}: {error}");
        }
    }
}
