//! [`Shared`]: what an [`HttpConnection`](super::HttpConnection) shares with its clones, and how it runs a request.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use diesel::result::{Error, QueryResult};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;

use super::answer::{Texts, parse};
use super::client::{Client, Progress};
use super::failure::{Failure, late, malformed, not_sent, of_answer, of_trouble};
use super::known::Known;
use crate::protocol::ServerError;
use crate::query::unsendable;
use crate::util::backoff;

/// Returns a token for each request.
pub(super) type TokenSource = Arc<
    dyn Fn() -> BoxFuture<'static, Result<String, Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Sync,
>;

/// What an [`HttpConnection`](super::HttpConnection) shares with its clones.
pub(super) struct Shared {
    pub(super) client: Arc<Client>,
    pub(super) headers: HeaderMap,
    pub(super) token: Option<TokenSource>,
    pub(super) request_timeout: Option<Duration>,
    pub(super) max_response_size: usize,
    pub(super) known: Mutex<Known>,
}

/// A statement in the body of a request.
#[derive(Debug, Serialize)]
pub(super) struct Query<'a> {
    pub(super) query: &'a str,
    pub(super) params: &'a [Option<String>],
}

impl Shared {
    /// Runs a statement, its look-ups included, within the time that it has.
    pub(super) async fn bounded<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = QueryResult<T>>,
    ) -> QueryResult<T> {
        let Some(limit) = self.request_timeout else {
            return work.await;
        };
        match self.client.connector().timer().timeout(limit, work).await {
            Some(done) => done,
            None => Err(late(limit, progress.is_sent())),
        }
    }

    /// Sends a request, and returns the body of its answer. A request that was not run is sent again, as long as the connect
    /// timeout lasts.
    pub(super) async fn request(
        &self,
        mut headers: HeaderMap,
        body: impl Serialize,
        progress: &Arc<Progress>,
    ) -> Result<Bytes, Failure> {
        let body = serde_json::to_vec(&body);
        let body = body.map_err(|error| Failure::Other(Error::SerializationError(error.into())))?;
        let body = Bytes::from(body);
        let connector = self.client.connector();
        let began = Instant::now();
        let (mut failures, mut stale) = (0, 0);
        loop {
            if let Some(token) = &self.token {
                headers.insert(header::AUTHORIZATION, bearer(token().await)?);
            }
            let answer = self.client.send(&headers, &body, progress).await;
            let failure = match answer {
                Ok((StatusCode::OK, body)) => return Ok(body),
                Ok((status, body)) => of_answer(status, &body),
                Err(trouble) => of_trouble(trouble, self.max_response_size),
            };
            match &failure {
                // The next is likely a new connection.
                Failure::Stale if stale < MOST_STALE => stale += 1,
                Failure::NotRun(error) => {
                    progress.set_not_run();
                    let budget = error.retry_budget(connector.budget());
                    let left = budget.saturating_sub(began.elapsed());
                    if left < LEAST {
                        return Err(failure);
                    }
                    let pause = backoff::pause(failures, left);
                    failures += 1;
                    tracing::debug!(error = ?error, pause = ?pause, "a request was not run, trying again");
                    connector.timer().sleep(pause).await;
                }
                _ => return Err(failure),
            }
        }
    }

    /// Runs a statement of ours, whose rows are text.
    pub(super) async fn texts(&self, sql: &str, params: Vec<Option<String>>) -> QueryResult<Texts> {
        let query = Query {
            query: sql,
            params: &params,
        };
        let progress = Arc::default();
        let answer = self.request(self.headers.clone(), &query, &progress).await;
        let answer = answer.map_err(Failure::into_error)?;
        let answer = parse::<Texts>(&answer).map_err(|error| malformed(&error.to_string()))?;
        Ok(answer.rows)
    }
}

/// How many connections may turn out to have ended before a request is given up.
const MOST_STALE: u32 = 3;

/// With less time than this left, another attempt cannot succeed.
const LEAST: Duration = Duration::from_millis(100);

/// Returns the header with a token.
fn bearer(
    token: Result<String, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<HeaderValue, Failure> {
    let token = token.map_err(|error| {
        Failure::Other(not_sent(&format!("the token source has failed: {error}")))
    })?;
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_| {
        let words = "the token has characters that no header can have; the statement was not run";
        Failure::Other(unsendable(ServerError {
            routine: Some(ServerError::NOT_SENT.to_owned()),
            ..ServerError::local("28000", words)
        }))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("client", &self.client)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}
