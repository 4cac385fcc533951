//! The statements in the body of a request.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde_json::Value;

use super::failure::Failure;

/// How long a request may be, and an answer.
pub(super) const LIMIT: usize = 10 * 1024 * 1024;

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Payload {
    Single(Query),
    /// One transaction.
    Batch(Vec<Query>),
}

/// A statement with its parameters in text.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) parameters: Vec<Option<String>>,
    pub(super) array_mode: Option<bool>,
}

impl Payload {
    /// Reads the body of a request.
    pub(super) async fn read(body: Incoming) -> Result<Self, Failure> {
        let too_large = || {
            let message = format!("request is too large (max is {LIMIT} bytes)");
            Failure::new(413, message)
        };
        if body.size_hint().lower() > LIMIT as u64 {
            return Err(too_large());
        }
        let read = Limited::new(body, LIMIT).collect().await;
        let bytes = read.map_err(|error| match error.is::<LengthLimitError>() {
            true => too_large(),
            false => Failure::bad(format!("could not read the HTTP request body: {error}")),
        })?;
        let unparsable = |why: &dyn std::fmt::Display| {
            Failure::bad(format!("could not parse the HTTP request body: {why}"))
        };
        let json: Value = serde_json::from_slice(&bytes.to_bytes()).map_err(|e| unparsable(&e))?;
        let payload = match json.get("queries") {
            Some(queries) => {
                let queries = queries.as_array().into_iter().flatten();
                queries
                    .map(Query::from_json)
                    .collect::<Option<_>>()
                    .map(Self::Batch)
            }
            None => Query::from_json(&json).map(Self::Single),
        };
        payload
            .ok_or_else(|| unparsable(&"data did not match any variant of untagged enum Payload"))
    }
}

impl Query {
    fn from_json(json: &Value) -> Option<Self> {
        let parameters = match json.get("params") {
            Some(parameters) => parameters.as_array()?,
            None => &Vec::new(),
        };
        Some(Self {
            sql: json.get("query")?.as_str()?.to_owned(),
            parameters: parameters.iter().map(text).collect(),
            array_mode: json.get("arrayMode").and_then(Value::as_bool),
        })
    }
}

/// Returns a parameter in PostgreSQL's text, or nothing for NULL.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(_) => Some(element(value)),
        other => Some(other.to_string()),
    }
}

/// Returns a value inside of an array in PostgreSQL's text.
fn element(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(element).collect();
            format!("{{{}}}", elements.join(","))
        }
        Value::Object(_) => Value::String(value.to_string()).to_string(),
        other => other.to_string(),
    }
}
