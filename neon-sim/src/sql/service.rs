//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Request, Response};

use super::access::admit;
use super::answer::respond;
use super::caller::Caller;
use super::database::{Session, Sessions};
use super::failure::Failure;
use super::headers::{DEFERRABLE, ISOLATION_LEVEL, Options, READ_ONLY, Target};
use super::output::Form;
use super::payload::{Payload, Query};
use super::statement::run;
use crate::control::counters::Tally;
use crate::control::event::Suspension;
use crate::proxy::shared::Shared;
use crate::proxy::wake::wake;

/// What the first label of a host begins with that takes tokens.
const TAKES_TOKENS: &str = "apiauth.";

/// Answers requests for SQL.
pub(crate) struct SqlService {
    shared: Arc<Shared>,
    /// The tokens that are accepted.
    tokens: Vec<String>,
    sessions: Sessions,
}

impl SqlService {
    pub(crate) fn new(shared: Arc<Shared>, tokens: Vec<String>) -> Self {
        Self {
            shared,
            tokens,
            sessions: Sessions::default(),
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let answer = self.try_answer(caller, request).await;
        caller.answered();
        answer.unwrap_or_else(|failure| failure.response())
    }

    async fn try_answer(
        &self,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let shared = &self.shared;
        let takes_tokens = host(&request).is_some_and(|host| host.starts_with(TAKES_TOKENS));
        let target = Target::read(request.headers(), takes_tokens)?;
        let options = Options::read(request.headers())?;
        let payload = Payload::read(request.into_body()).await?;
        let endpoint = admit(shared, &self.tokens, &target).await?;
        let tally = shared.tally(&endpoint);
        caller.count_at(tally);

        let busy = wake(shared).await.map_err(Failure::connecting)?;
        let closed = || Failure::new(500, "connection closed");
        let mut membership = shared.compute.enter().ok_or_else(closed)?;
        let owner = (
            shared.socket(&endpoint).clone(),
            target.user,
            target.database,
        );
        if !shared.compute.may_have(&owner.2) {
            return Err(Failure::no_database(&owner.2));
        }
        let patience = shared.timing.compute_connect;
        let work = async {
            let mut session = self.sessions.take(owner, patience).await?;
            execute(&mut session, &payload, &options, tally).await
        };
        let mut work = std::pin::pin!(work);
        let order = tokio::select! {
            json = &mut work => return Ok(success(json?, &payload, &options)),
            order = membership.until_suspended() => order,
        };
        match order.suspension {
            Suspension::Normal => {
                // The server's last words are the answer.
                drop(order);
                Ok(success(work.await?, &payload, &options))
            }
            Suspension::Reset => {
                caller.end();
                drop(order);
                std::future::pending().await
            }
            Suspension::Silent => {
                drop((order, busy));
                std::future::pending().await
            }
        }
    }
}

/// Returns the host that a request is sent to.
fn host(request: &Request<Incoming>) -> Option<&str> {
    let named = request.headers().get(HOST);
    let named = named.and_then(|host| host.to_str().ok());
    request.uri().host().or(named)
}

/// Runs the statements of a request, and returns the answer's body.
async fn execute(
    session: &mut Session,
    payload: &Payload,
    options: &Options,
    tally: &Tally,
) -> Result<String, Failure> {
    let form = |query: &Query| Form {
        raw_text: options.raw_text,
        array_mode: query.array_mode.unwrap_or(options.array_mode),
    };
    let mut json = String::new();
    let queries = match payload {
        Payload::Single(query) => {
            tally.statements.add(1);
            run(session, query, form(query), &mut json).await?;
            return Ok(json);
        }
        Payload::Batch(queries) => queries,
    };
    session.simple(&options.begin()).await?;
    json.push_str("{\"results\":[");
    for (index, query) in queries.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        tally.statements.add(1);
        if let Err(failure) = run(session, query, form(query), &mut json).await {
            // A session that cannot is not kept.
            let _ = session.simple("ROLLBACK").await;
            return Err(failure);
        }
    }
    session.simple("COMMIT").await?;
    json.push_str("]}");
    Ok(json)
}

fn success(json: String, payload: &Payload, options: &Options) -> Response<Full<Bytes>> {
    let mut response = respond(200, json);
    let mut repeat = |name, value| {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        response.headers_mut().insert(name, value);
    };
    if matches!(payload, Payload::Batch(_)) {
        if options.read_only {
            repeat(READ_ONLY, "true");
        }
        if options.deferrable {
            repeat(DEFERRABLE, "true");
        }
        if let Some((level, _)) = options.isolation_level {
            repeat(ISOLATION_LEVEL, level);
        }
    }
    response
}
