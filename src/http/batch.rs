//! [`Batch`]: several statements as one transaction.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use diesel::deserialize::{self, FromSqlRow};
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment};
use diesel::query_dsl::CompatibleType;
use diesel::result::{Error, QueryResult};
use http::{HeaderMap, HeaderValue};

use super::report::Reporter;
use super::sent::{Form, Wanted, wanted};
use super::shared::Shared;
use super::statement::{Ready, Statement, count, rows};
use crate::query::Row;
use crate::util::statements::statements;

/// Several statements that are sent at once and run as one transaction: all of them, or none.
///
/// Begun by [`HttpConnection::batch`](super::HttpConnection::batch). The statements are known before the first of them runs;
/// `SAVEPOINT` and `SET LOCAL` are among those that work. A mode that is not set is the server's default.
#[must_use = "a batch runs when send() is called"]
pub struct Batch<'a> {
    shared: &'a Shared,
    reporter: &'a Reporter,
    statements: Vec<Statement>,
    isolation: Option<&'static str>,
    is_read_only: bool,
    is_deferrable: bool,
    number: u64,
}

/// Tells a batch from others.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Takes a statement's result out of [`BatchResults`].
#[must_use = "a ticket takes its statement's result"]
pub struct Ticket<T> {
    batch: u64,
    index: usize,
    read: fn(Bytes, Form) -> QueryResult<T>,
    result: PhantomData<fn() -> T>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(shared: &'a Shared, reporter: &'a Reporter) -> Self {
        Self {
            shared,
            reporter,
            statements: Vec::new(),
            isolation: None,
            is_read_only: false,
            is_deferrable: false,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Sets `ISOLATION LEVEL READ COMMITTED`, Postgres's default.
    pub fn read_committed(mut self) -> Self {
        self.isolation = Some("ReadCommitted");
        self
    }

    /// Sets `ISOLATION LEVEL REPEATABLE READ`.
    pub fn repeatable_read(mut self) -> Self {
        self.isolation = Some("RepeatableRead");
        self
    }

    /// Sets `ISOLATION LEVEL SERIALIZABLE`.
    pub fn serializable(mut self) -> Self {
        self.isolation = Some("Serializable");
        self
    }

    /// Sets `READ ONLY`.
    pub fn read_only(mut self) -> Self {
        self.is_read_only = true;
        self
    }

    /// Sets `DEFERRABLE`: a serializable, read-only transaction waits at its start until no serialization failure can end it.
    pub fn deferrable(mut self) -> Self {
        self.is_deferrable = true;
        self
    }

    /// Adds a statement whose rows are wanted.
    pub fn add_load<U, Q>(&mut self, query: Q) -> Ticket<Vec<U>>
    where
        Q: AsQuery,
        Q::Query: QueryFragment<Pg>,
        Q::SqlType: CompatibleType<U, Pg>,
        U: FromSqlRow<<Q::SqlType as CompatibleType<U, Pg>>::SqlType, Pg>,
    {
        fn read<U, ST>(json: Bytes, form: Form) -> QueryResult<Vec<U>>
        where
            U: FromSqlRow<ST, Pg>,
        {
            let build = |row: &Row| -> deserialize::Result<U> { U::build_from_row(row) };
            let rows = rows(&json, form)?.all();
            let rows = rows.map(|row| build(&row?).map_err(Error::DeserializationError));
            rows.collect()
        }

        let statement = Statement::new(&query.as_query(), wanted::<Q::SqlType>());
        self.push(
            statement,
            read::<U, <Q::SqlType as CompatibleType<U, Pg>>::SqlType>,
        )
    }

    /// Adds a statement of which the count of the rows that it changes is wanted.
    pub fn add_execute(&mut self, query: impl QueryFragment<Pg>) -> Ticket<usize> {
        let statement = Statement::new(&query, Wanted::Count);
        self.push(statement, |json, _| count(&json))
    }

    fn push<T>(
        &mut self,
        statement: Statement,
        read: fn(Bytes, Form) -> QueryResult<T>,
    ) -> Ticket<T> {
        let index = self.statements.len();
        self.statements.push(statement);
        Ticket {
            batch: self.number,
            index,
            read,
            result: PhantomData,
        }
    }

    /// Runs the statements, in the order in which they were added. Without statements, nothing is sent.
    ///
    /// # Errors
    ///
    /// The error of the statement that failed, or of the COMMIT; nothing of the batch is kept then. Its
    /// `statement_position` is there if it is clear whose it is.
    pub async fn send(self) -> QueryResult<BatchResults> {
        if self.statements.is_empty() {
            return Ok(BatchResults::default());
        }
        let headers = self.headers();
        let Self {
            shared,
            reporter,
            statements,
            number,
            ..
        } = self;
        let (mut texts, mut prepared) = (Vec::new(), Vec::new());
        for statement in statements {
            let (sql, statement) = statement.take_sql();
            texts.push(sql);
            prepared.push(statement);
        }
        let started = reporter.start_sql(texts.join("; "));
        let progress = Arc::default();
        let work = async {
            let mut ready = Vec::new();
            for (sql, statement) in texts.iter().zip(prepared) {
                ready.push(shared.ready(sql, statement).await?);
            }
            let all: Vec<_> = ready.iter().collect();
            let results = shared.transaction(headers, &all, &progress).await?;
            let results = results.into_iter().zip(&ready);
            Ok(BatchResults {
                batch: number,
                results: results
                    .map(|(json, ready)| Some((json, ready.sent.form)))
                    .collect(),
            })
        };
        started.finish(shared.bounded(&progress, work).await)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = self.shared.headers.clone();
        let mut set = |name, value: Option<&'static str>| {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_static(value));
            }
        };
        set("neon-batch-isolation-level", self.isolation);
        set("neon-batch-read-only", self.is_read_only.then_some("true"));
        set(
            "neon-batch-deferrable",
            self.is_deferrable.then_some("true"),
        );
        headers
    }
}

/// Runs the statements of a text: several as one transaction.
pub(super) async fn run_all(shared: &Shared, sql: &str) -> QueryResult<()> {
    let mut all = statements(sql);
    if all.is_empty() {
        // The server says what is wrong with none.
        all.push(0..sql.len());
    }
    let all = all.into_iter().map(|range| Ready::of_text(sql, range));
    let ready = all.collect::<QueryResult<Vec<_>>>()?;
    let progress = Arc::default();
    let work = async {
        if let [only] = &*ready {
            // Not every statement runs in a transaction.
            return shared.answer(only, &progress).await.map(drop);
        }
        let headers = shared.headers.clone();
        let all: Vec<_> = ready.iter().collect();
        shared.transaction(headers, &all, &progress).await.map(drop)
    };
    shared.bounded(&progress, work).await
}

/// The results of a [`Batch`].
#[derive(Default)]
pub struct BatchResults {
    batch: u64,
    results: Vec<Option<(Bytes, Form)>>,
}

impl BatchResults {
    /// Takes the result of a statement.
    ///
    /// # Errors
    ///
    /// [`DeserializationError`](Error::DeserializationError) if the rows are not what the types say; the batch is
    /// committed all the same. [`NotFound`](Error::NotFound) if the ticket is another batch's.
    pub fn take<T>(&mut self, ticket: Ticket<T>) -> QueryResult<T> {
        if ticket.batch != self.batch {
            return Err(Error::NotFound);
        }
        let result = self.results.get_mut(ticket.index).and_then(Option::take);
        let (json, form) = result.ok_or(Error::NotFound)?;
        (ticket.read)(json, form)
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("statements", &self.statements.len())
            .field("isolation", &self.isolation)
            .field("is_read_only", &self.is_read_only)
            .field("is_deferrable", &self.is_deferrable)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.index).finish()
    }
}

impl fmt::Debug for BatchResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchResults")
            .field("results", &self.results.len())
            .finish()
    }
}
