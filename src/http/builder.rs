//! [`HttpConnectionBuilder`]: makes an [`HttpConnection`] from a URL and settings.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;

use super::client::{Client, common_headers};
use super::connection::HttpConnection;
use super::known::Known;
use super::route::Routes;
use super::shared::{Shared, TokenSource};
use crate::connect::HttpsConnector;
use crate::policy::{Policy, PolicyBuilder, PolicyError};
use crate::transport::{Timer, TlsError};
use crate::url::{DatabaseUrl, UrlError};

impl HttpConnection {
    /// Makes a connection with the default settings. Nothing is sent before the first statement.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn new<U>(url: U) -> Result<Self, BuildError>
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        Self::builder(url).build()
    }

    /// Begins a connection for `url`, a [`DatabaseUrl`] or its text.
    pub fn builder<U>(url: U) -> HttpConnectionBuilder
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        HttpConnectionBuilder::new(url)
    }
}

/// Builds an [`HttpConnection`]. Nothing is sent before the first statement.
#[must_use]
pub struct HttpConnectionBuilder {
    url: Result<DatabaseUrl, UrlError>,
    policy: PolicyBuilder,
    request_timeout: Option<Duration>,
    max_response_size: usize,
    token: Option<TokenSource>,
    timer: Timer,
}

impl HttpConnectionBuilder {
    pub(super) fn new<U>(url: U) -> Self
    where
        U: TryInto<DatabaseUrl, Error: Into<UrlError>>,
    {
        Self {
            url: url.try_into().map_err(Into::into),
            policy: Policy::builder(),
            request_timeout: Some(REQUEST_TIMEOUT),
            max_response_size: MAX_RESPONSE_SIZE,
            token: None,
            timer: Timer::Runtime,
        }
    }

    /// Set the time for a connect and for the retries of requests that were not run, by
    /// [`connect_timeout`](PolicyBuilder::connect_timeout), and the time after which an idle connection is not used again, by
    /// [`idle_timeout`](PolicyBuilder::idle_timeout). The other settings are a pool's. Default: those of [`Policy`], with the
    /// URL's `connect_timeout`.
    pub fn policy(mut self, policy: PolicyBuilder) -> Self {
        self.policy = policy;
        self
    }

    /// Set how long a statement or a batch may take, look-ups of types, connects and retries included; `None`: for ever.
    /// Default: 60 s, which leaves room for a
    /// cold start and a slow statement, and ends before the callers of most functions give up.
    ///
    /// A statement that is late is cancelled, as one whose future is dropped.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = timeout.into();
        self
    }

    /// Set how many bytes an answer may have at most. Default: 64 MiB. Neon's own limit of 10 MiB does not count a result's last
    /// row.
    pub fn max_response_size(mut self, bytes: usize) -> Self {
        self.max_response_size = bytes;
        self
    }

    /// Authenticate with a token (JWT) in place of the password, so that Neon's row-level security knows who asks. Default: the
    /// password of the URL.
    ///
    /// The source is asked for each request. Requests go to the `apiauth` host of the endpoint's region, as Neon wants it,
    /// without a password; those to a host with another name than Neon's go to that host.
    ///
    /// ```
    /// # use diesel_neon::http::{BuildError, HttpConnection};
    /// # async fn current_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let url = "postgresql://authenticated@ep-cool-darkness-123456.eu-central-1.aws.neon.tech/neondb";
    /// let connection = HttpConnection::builder(url)
    ///     .token_source(|| async { Ok(current_token().await?) })
    ///     .build()?;
    /// # Ok::<_, BuildError>(())
    /// ```
    pub fn token_source<F, T>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        self.token = Some(Arc::new(move || source().boxed()));
        self
    }

    /// Waits by threads in place of the runtime's timers, which it may not have.
    pub(super) fn untimed(mut self) -> Self {
        self.timer = Timer::Thread;
        self
    }

    /// Builds the connection.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn build(self) -> Result<HttpConnection, BuildError> {
        let url = self.url?;
        url.check_http()?;
        if self.token.is_some() {
            url.check_tokens()?;
        }
        let policy = self
            .policy
            .or_connect_timeout(url.connect_timeout())
            .build()?;
        let known = Known {
            // That of one host says nothing of another's.
            is_utc: (url.hosts().len() > 1).then_some(false),
            ..Known::default()
        };
        let routes = Routes::new(url, self.token.is_some());
        let connector =
            HttpsConnector::new(&routes.dialled(), policy.connect_timeout(), self.timer)?;
        let idle_timeout = policy.idle_timeout();
        let shared = Shared {
            client: Arc::new(Client::new(
                connector,
                routes,
                idle_timeout,
                self.max_response_size,
                self.request_timeout,
            )),
            headers: common_headers(),
            token: self.token,
            request_timeout: self.request_timeout,
            max_response_size: self.max_response_size,
            known: Mutex::new(known),
        };
        Ok(HttpConnection::of(Arc::new(shared)))
    }
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_RESPONSE_SIZE: usize = 64 * 1024 * 1024;

impl fmt::Debug for HttpConnectionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnectionBuilder")
            .field("url", &self.url)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// An [`HttpConnection`] cannot be built.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL cannot be used, or asks for what only a session can have.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The settings contradict one another.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The certificates to trust cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

crate::util::debug_is_chain!(BuildError);
