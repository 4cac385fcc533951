//! Statements in UTC, as over TCP: a role may have a time zone of its own.

use std::sync::Arc;

use bytes::Bytes;
use diesel::result::QueryResult;
use http::HeaderMap;
use serde::Serialize;

use super::answer::{Results, Texts, parse};
use super::client::Progress;
use super::failure::malformed;
use super::parts::Kind;
use super::shared::{Query, Shared};
use super::statement::Ready;
use crate::connect::is_utc;
use crate::util::lock;

/// The body of a request with several statements.
#[derive(Debug, Serialize)]
struct Queries<'a> {
    queries: Vec<Query<'a>>,
}

const SHOW: &str = "SHOW TimeZone";

/// Neither takes a snapshot, before which `SET TRANSACTION` has to stand.
const SET: &str = "SET LOCAL TimeZone TO 'UTC'";

impl Shared {
    /// Returns whether a statement by itself would run in UTC, or is one that may not run in a transaction with others.
    pub(super) fn may_run_alone(&self, ready: &Ready) -> bool {
        ready.sent.kind == Kind::Other || lock(&self.known).is_utc == Some(true)
    }

    /// Sends statements as one transaction, and returns their results. As long as the role's time zone is not known to be
    /// UTC, others in front look at it, if there is one host, and set it: that takes no round trip of its own.
    pub(super) async fn transaction(
        &self,
        headers: HeaderMap,
        ready: &[&Ready],
        progress: &Arc<Progress>,
    ) -> QueryResult<Vec<Bytes>> {
        let known = lock(&self.known).is_utc;
        let before: &[&str] = match known {
            None => &[SHOW, SET],
            Some(false) => &[SET],
            Some(true) => &[],
        };
        let own = before.iter().map(|sql| Query {
            query: sql,
            params: &[],
        });
        let queries = own.chain(ready.iter().map(|ready| ready.query()));
        let body = Queries {
            queries: queries.collect(),
        };
        let answer = self.request(headers, &body, progress).await;
        let answer = answer.map_err(|failure| self.error(failure, ready))?;
        let unreadable = |error: serde_json::Error| malformed(&error.to_string());
        let parsed = serde_json::from_slice::<Results<'_>>(&answer).map_err(unreadable)?;
        if parsed.results.len() != body.queries.len() {
            return Err(malformed("as many results as statements are missing"));
        }
        let slice = |json: &&serde_json::value::RawValue| answer.slice_ref(json.get().as_bytes());
        let mut results: Vec<_> = parsed.results.iter().map(slice).collect();
        if known.is_none() {
            let shown = parse::<Texts>(&results[0]).map_err(unreadable)?.rows;
            let zone = shown.first().and_then(|row| row.first()?.as_deref());
            lock(&self.known).is_utc = zone.map(is_utc);
        }
        Ok(results.split_off(before.len()))
    }
}
