//! The operations of both connections, and their outcomes.

use std::sync::{Arc, Mutex};

use diesel::connection::{InstrumentationEvent, TransactionManagerStatus};
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::row::{Field, Row};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use diesel_neon::Connection;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};

use crate::common::outline;

/// The outcome of a step, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: String,
    pub events: Vec<String>,
    /// Diesel's depth of transactions.
    pub depth: String,
}

impl Outcome {
    /// Returns the outcome with each text passed through `words`.
    pub fn with(&self, words: impl Fn(&str) -> String) -> Self {
        Self {
            result: words(&self.result),
            events: self.events.iter().map(|event| words(event)).collect(),
            depth: self.depth.clone(),
        }
    }
}

/// One of the two connections, with its instrumentation.
pub struct Watched<C> {
    pub connection: C,
    events: Arc<Mutex<Vec<String>>>,
}

/// The operations that are methods of each connection's own.
pub trait Subject: AsyncConnection<Backend = Pg> {
    /// Runs a transaction by `transaction`, around those inside of it.
    fn nest<'a>(&'a mut self, nest: &'a Nest) -> BoxFuture<'a, QueryResult<String>>;
    /// Runs a transaction by `build_transaction`, with these settings.
    fn build<'a>(
        &'a mut self,
        options: [u8; 3],
        sql: &'a str,
    ) -> BoxFuture<'a, QueryResult<String>>;
}

/// A transaction with statements and transactions in it.
#[derive(Clone, Debug)]
pub struct Nest {
    pub parts: Vec<Part>,
    /// Whether the transaction ends with an error of the caller's.
    pub gives_up: bool,
}

#[derive(Clone, Debug)]
pub enum Part {
    /// A statement, whose error ends the transaction or is swallowed.
    Sql {
        sql: String,
        swallowed: bool,
    },
    Nest {
        nest: Nest,
        swallowed: bool,
    },
}

macro_rules! subject {
    ($connection:ty) => {
        impl Subject for $connection {
            fn nest<'a>(&'a mut self, nest: &'a Nest) -> BoxFuture<'a, QueryResult<String>> {
                async move {
                    self.transaction(async |connection: &mut $connection| {
                        let mut told = String::new();
                        for part in &nest.parts {
                            let (done, swallowed) = match part {
                                Part::Sql { sql, swallowed } => {
                                    (rows(connection, diesel::sql_query(sql)).await, swallowed)
                                }
                                Part::Nest { nest, swallowed } => {
                                    (connection.nest(nest).await, swallowed)
                                }
                            };
                            match done {
                                Ok(text) => told += &format!("[{text}]"),
                                Err(error) if *swallowed => told += &format!("[{}]", tell(&error)),
                                Err(error) => return Err(error),
                            }
                        }
                        match nest.gives_up {
                            true => Err(Error::RollbackTransaction),
                            false => Ok(told),
                        }
                    })
                    .await
                }
                .boxed()
            }

            fn build<'a>(
                &'a mut self,
                options: [u8; 3],
                sql: &'a str,
            ) -> BoxFuture<'a, QueryResult<String>> {
                async move {
                    let mut builder = self.build_transaction();
                    builder = match options[0] {
                        0 => builder,
                        1 => builder.read_committed(),
                        2 => builder.repeatable_read(),
                        _ => builder.serializable(),
                    };
                    builder = match options[1] {
                        0 => builder,
                        1 => builder.read_only(),
                        _ => builder.read_write(),
                    };
                    builder = match options[2] {
                        0 => builder,
                        1 => builder.deferrable(),
                        _ => builder.not_deferrable(),
                    };
                    let run = async |connection: &mut $connection| {
                        let mut told = String::new();
                        for name in ["isolation", "read_only", "deferrable"] {
                            let show = diesel::sql_query(format!("SHOW transaction_{name}"));
                            told += &rows(connection, show).await?;
                        }
                        Ok(told + &rows(connection, diesel::sql_query(sql)).await?)
                    };
                    builder.run(run).await
                }
                .boxed()
            }
        }
    };
}
subject!(Connection);
subject!(AsyncPgConnection);

impl<C: Subject> Watched<C> {
    pub fn new(mut connection: C) -> Self {
        let events = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&events);
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            seen.lock().unwrap().push(outline(&event));
        });
        Self { connection, events }
    }

    /// Returns the outcome of a step.
    pub fn outcome(&mut self, done: QueryResult<String>) -> Outcome {
        let status = C::TransactionManager::transaction_manager_status_mut(&mut self.connection);
        let depth = match status {
            TransactionManagerStatus::Valid(_) => format!("{:?}", status.transaction_depth()),
            TransactionManagerStatus::InError => "in error".to_owned(),
        };
        Outcome {
            result: done.unwrap_or_else(|error| tell(&error)),
            events: std::mem::take(&mut *self.events.lock().unwrap()),
            depth,
        }
    }
}

/// Returns every row of a query, byte for byte.
pub async fn rows<C, Q>(connection: &mut C, query: Q) -> QueryResult<String>
where
    C: Subject,
    Q: AsQuery,
    Q::Query: QueryFragment<Pg> + QueryId,
{
    let mut rows = std::pin::pin!(connection.load(query).await?);
    let mut told = String::from("rows");
    while let Some(row) = rows.try_next().await? {
        told += " (";
        for index in 0..row.field_count() {
            let field = row.get(index).unwrap();
            let name = field.field_name().map(str::to_owned);
            let value = field.value().map(|value| {
                let bytes = value.as_bytes().iter().map(|byte| format!("{byte:02x}"));
                (value.get_oid(), bytes.collect::<String>())
            });
            told += &format!("{name:?}={value:?},");
        }
        told += ")";
    }
    Ok(told)
}

/// Renders every field of an error.
pub fn tell(error: &Error) -> String {
    match error {
        Error::DatabaseError(kind, told) => format!(
            "error {kind:?}: {} / {:?} / {:?} / {:?} / {:?} / {:?} / {:?}",
            told.message(),
            told.details(),
            told.hint(),
            told.table_name(),
            told.column_name(),
            told.constraint_name(),
            told.statement_position(),
        ),
        other => format!("error {other:?}"),
    }
}
