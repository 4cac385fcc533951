//! [`Statement`]: a query of Diesel's, from its SQL to its result.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use diesel::pg::Pg;
use diesel::query_builder::QueryFragment;
use diesel::result::{Error, QueryResult};
use serde::de::IgnoredAny;

use super::answer::{Records, Texts, parse};
use super::client::Progress;
use super::failure::{Failure, malformed};
use super::parts::is_transaction_control;
use super::rows::{NotBinary, Rows};
use super::sent::{Form, Sent, Wanted};
use super::shared::{Query, Shared};
use super::text::{Customs, NoText, push_text, sql_name};
use super::unsupported::{ParameterUnsupported, RowsUnsupported, TransactionUnsupported};
use crate::query::{Binds, render};

/// A query as SQL and binds, which borrows nothing of Diesel's types.
#[derive(Debug)]
pub(super) struct Statement {
    /// Left out once it was taken.
    sql: String,
    binds: QueryResult<Binds>,
    wanted: Wanted,
}

/// A statement that is ready to be sent.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) sent: Sent,
    pub(super) parameters: Vec<Option<String>>,
}

impl Statement {
    pub(super) fn new(query: &impl QueryFragment<Pg>, wanted: Wanted) -> Self {
        let (sql, binds) = match render(query) {
            Ok(sql) => (sql, Binds::collect(query)),
            Err(error) => (String::new(), Err(error)),
        };
        Self { sql, binds, wanted }
    }

    /// Takes the SQL out.
    pub(super) fn take_sql(mut self) -> (String, Self) {
        (std::mem::take(&mut self.sql), self)
    }
}

impl Shared {
    /// Runs a statement for its rows.
    pub(super) async fn load_statement(
        &self,
        sql: &str,
        statement: Statement,
    ) -> QueryResult<Rows> {
        let progress = Arc::default();
        let work = async {
            let ready = self.ready(sql, statement).await?;
            let answer = self.answer(&ready, &progress).await?;
            rows(&answer, ready.sent.form)
        };
        self.bounded(&progress, work).await
    }

    /// Runs a statement for its count.
    pub(super) async fn execute_statement(
        &self,
        sql: &str,
        statement: Statement,
    ) -> QueryResult<usize> {
        let progress = Arc::default();
        let work = async {
            let ready = self.ready(sql, statement).await?;
            count(&self.answer(&ready, &progress).await?)
        };
        self.bounded(&progress, work).await
    }

    /// Sends a statement, and returns its result.
    pub(super) async fn answer(
        &self,
        ready: &Ready,
        progress: &Arc<Progress>,
    ) -> QueryResult<Bytes> {
        let headers = self.headers.clone();
        if !self.may_run_alone(ready) {
            let mut results = self.transaction(headers, &[ready], progress).await?;
            return results.pop().ok_or_else(|| malformed("no result"));
        }
        let answer = self.request(headers, ready.query(), progress).await;
        answer.map_err(|failure| self.error(failure, &[ready]))
    }

    /// Returns the error of a request, with its position in the callers' SQL if that is clear.
    pub(super) fn error(&self, failure: Failure, statements: &[&Ready]) -> Error {
        let failure = match failure {
            Failure::Server(mut error) => {
                if [UNDEFINED_OBJECT, INVALID_SCHEMA_NAME].contains(&&*error.code) {
                    self.forget_types();
                }
                error.position = error
                    .position
                    .and_then(|position| callers_position(position, statements));
                Failure::Server(error)
            }
            other => other,
        };
        failure.into_error()
    }

    /// Prepares a statement to be sent, with its types looked up.
    pub(super) async fn ready(&self, sql: &str, statement: Statement) -> QueryResult<Ready> {
        refuse_transaction_control(sql)?;
        let mut binds = statement.binds?;
        let names: Vec<_> = binds.named().cloned().collect();
        if !names.is_empty() {
            let types = self.oids_of(names.iter().collect()).await?;
            binds.resolve(&types)?;
        }
        let oids = binds.oids();
        let mut asked = Vec::new();
        let mut customs = self.customs();
        loop {
            let unsupported = |reason| {
                let error = ParameterUnsupported::new(reason, &customs);
                Error::SerializationError(Box::new(error))
            };
            match encode(&oids, &binds, &customs) {
                Ok((types, parameters)) => {
                    return Ok(Ready {
                        sent: Sent::new(sql, &types, statement.wanted),
                        parameters,
                    });
                }
                Err(NoText::Unknown(oid)) if !asked.contains(&oid) => {
                    asked.push(oid);
                    // Another statement may have them forgotten meanwhile.
                    let found = self.look_up_oid(oid).await?;
                    Arc::make_mut(&mut customs).extend(found);
                }
                Err(reason) => return Err(unsupported(reason)),
            }
        }
    }
}

/// What tells that a type was dropped, or its schema.
const UNDEFINED_OBJECT: &str = "42704";
const INVALID_SCHEMA_NAME: &str = "3F000";

fn refuse_transaction_control(sql: &str) -> QueryResult<()> {
    match is_transaction_control(sql) {
        true => Err(Error::QueryBuilderError(Box::new(TransactionUnsupported(
            (),
        )))),
        false => Ok(()),
    }
}

impl Ready {
    /// Takes a statement without parameters out of a text of several.
    pub(super) fn of_text(text: &str, statement: Range<usize>) -> QueryResult<Self> {
        refuse_transaction_control(&text[statement.clone()])?;
        Ok(Self {
            sent: Sent::of_text(text, statement),
            parameters: Vec::new(),
        })
    }

    pub(super) fn query(&self) -> Query<'_> {
        Query {
            query: &self.sent.sql,
            params: &self.parameters,
        }
    }
}

/// A type's name in SQL, if it has one, for each parameter, and the parameters in text.
type Encoded = (Vec<Option<String>>, Vec<Option<String>>);

fn encode(oids: &[u32], binds: &Binds, customs: &Customs) -> Result<Encoded, NoText> {
    let (mut types, mut parameters) = (Vec::new(), Vec::new());
    for (oid, value) in oids.iter().zip(&binds.values) {
        types.push(match *oid {
            // The server finds out.
            0 | UNKNOWN => None,
            oid => Some(sql_name(oid, customs)?),
        });
        let text = value.as_ref().map(|value| {
            let mut text = String::new();
            let oid = if *oid == 0 { UNKNOWN } else { *oid };
            push_text(&mut text, oid, value, customs).map(|()| text)
        });
        parameters.push(text.transpose()?);
    }
    Ok((types, parameters))
}

/// The OID of the type `unknown`.
const UNKNOWN: u32 = 705;

/// Returns a position in the SQL of the one of the statements that it is in, if it can be in no other, nor in what is put
/// around them.
fn callers_position(position: i32, statements: &[&Ready]) -> Option<i32> {
    let position = usize::try_from(position).ok()?;
    let have_it = statements.iter().filter(|ready| ready.sent.has(position));
    let mut found = have_it.map(|ready| ready.sent.callers_position(position));
    let first = found.next()??;
    let is_clear = found.all(|other| other == Some(first));
    i32::try_from(first).ok().filter(|_| is_clear)
}

/// Reads the rows of an answer.
pub(super) fn rows(json: &[u8], form: Form) -> QueryResult<Rows> {
    let unreadable = |error: serde_json::Error| malformed(&error.to_string());
    match form {
        Form::Binary | Form::BinaryWithNames => {
            let answer = parse::<Records>(json).map_err(unreadable)?;
            Ok(Rows::of_records(answer))
        }
        Form::Text => {
            let answer = parse::<Texts>(json).map_err(unreadable)?;
            Rows::of_texts(answer).map_err(|reason| match reason {
                NotBinary::Malformed => malformed("a value is not one of its type"),
                NotBinary::Type(oid) => {
                    Error::DeserializationError(Box::new(RowsUnsupported::new(oid)))
                }
            })
        }
    }
}

/// Reads the count of an answer.
pub(super) fn count(json: &[u8]) -> QueryResult<usize> {
    let answer = parse::<IgnoredAny>(json).map_err(|error| malformed(&error.to_string()))?;
    let count = answer.count.unwrap_or(0);
    usize::try_from(count).map_err(|_| malformed("rowCount"))
}
