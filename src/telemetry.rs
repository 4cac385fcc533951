//! [`QueryTelemetry`]: statements as OpenTelemetry's semantic conventions want them reported.

mod statement;

use std::fmt;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use diesel::result::Error;
use tracing::Span;
use tracing::field::Empty;

use self::statement::{collection, operation};
use crate::query::{DatabaseErrorExt, Mark, is_dropped};
use crate::url::{DatabaseUrl, HostName};

/// Reports each statement under the names of OpenTelemetry's semantic conventions: as a `tracing` span, and with the feature
/// `metrics` as a value of the histogram `db.client.operation.duration`, in seconds.
///
/// The span has the target `diesel_neon::query` and the level INFO. It begins when the statement is sent, under the span
/// that is current, and ends with the last row. `tracing-opentelemetry` exports it as a client's span, named by
/// `db.query.summary`: `SELECT books`.
///
/// | attribute | value |
/// |---|---|
/// | `db.system.name` | `postgresql` |
/// | `db.namespace` | the database |
/// | `db.operation.name` | the command, such as `SELECT`; `BATCH` for several; none if the command is not known here |
/// | `db.collection.name` | the table, if the statement shows one |
/// | `db.query.summary` | both; the span's only |
/// | `db.query.text` | the SQL, if [`with_query_text`](Self::with_query_text) was called; the span's only |
/// | `server.address`, `server.port` | the URL's first host |
/// | `error.type` | the SQLSTATE of a statement that has failed, `dropped`, or `_OTHER` |
/// | `db.response.status_code` | that SQLSTATE; the span's only |
///
/// Bind parameters are never reported, nor are the texts of errors, which may quote them. A statement whose future is
/// dropped ends then, with the `error.type` `dropped`; on an `AsyncPgConnection`, which does not tell, it has no duration,
/// and its span ends with the connection, at the latest.
///
/// ```no_run
/// use diesel_async::AsyncConnection;
/// use diesel_neon::{Connection, DatabaseUrl, Pool, QueryTelemetry};
///
/// # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = QueryTelemetry::new(&DatabaseUrl::parse(url)?);
///
/// // For every connection of a pool.
/// let of_pool = telemetry.clone();
/// let pool = Pool::builder(url)
///     .instrumentation(move || of_pool.instrumentation())
///     .build()?;
///
/// // For a single one.
/// let mut connection = Connection::establish(url).await?;
/// connection.set_instrumentation(telemetry.instrumentation());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "instrumentation() reports the statements of one connection"]
pub struct QueryTelemetry {
    server: Arc<Server>,
    with_query_text: bool,
}

/// What all statements of a URL have in common.
#[derive(Debug)]
struct Server {
    address: String,
    port: Option<u16>,
    namespace: String,
}

impl QueryTelemetry {
    /// Prepares to report the statements of connections to `url`.
    pub fn new(url: &DatabaseUrl) -> Self {
        #[cfg(feature = "metrics")]
        metrics::describe_histogram!(
            DURATION,
            metrics::Unit::Seconds,
            "Duration of database client operations."
        );
        let host = &url.hosts()[0];
        Self {
            server: Arc::new(Server {
                address: host.name.to_string(),
                port: matches!(host.name, HostName::Tcp(_)).then_some(host.port),
                namespace: url.database().unwrap_or_default().to_owned(),
            }),
            with_query_text: false,
        }
    }

    /// Reports the SQL as `db.query.text` too. Default: no.
    ///
    /// The SQL of Diesel's query builder has `$1` where a value stands. SQL that is written by hand may have secrets in it:
    /// `ALTER ROLE … PASSWORD '…'`.
    pub fn with_query_text(mut self) -> Self {
        self.with_query_text = true;
        self
    }

    /// Returns what reports the statements of one connection, for
    /// [`set_instrumentation`](diesel_async::AsyncConnection::set_instrumentation).
    pub fn instrumentation(&self) -> Box<dyn Instrumentation> {
        Box::new(Reporter {
            telemetry: self.clone(),
            sql: String::new(),
            under_way: Vec::new(),
        })
    }
}

/// Reports the statements of one connection.
struct Reporter {
    telemetry: QueryTelemetry,
    /// The SQL of the current event, without its binds.
    sql: String,
    /// Statements that share a connection's pipeline are under way together.
    under_way: Vec<Statement>,
}

/// A statement that is under way.
struct Statement {
    /// Identifies the statement, if its connection tells; several may share this reporter then.
    mark: Option<Mark>,
    /// Identifies the SQL: an event of Diesel's has nothing else.
    hash: u64,
    span: Span,
    began: Instant,
    #[cfg(feature = "metrics")]
    operation: Option<&'static str>,
    #[cfg(feature = "metrics")]
    collection: Option<Box<str>>,
}

impl Instrumentation for Reporter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.start(query),
            InstrumentationEvent::FinishQuery { query, error, .. } => self.finish(query, error),
            _ => {}
        }
    }
}

impl Reporter {
    fn start(&mut self, query: &dyn DebugQuery) {
        let hash = self.read(query);
        let operation = operation(&self.sql);
        let collection = operation.and_then(|operation| collection(&self.sql, operation));
        let span = self.span(operation, collection.as_deref());
        let mark = Mark::current();
        if mark.is_none() && self.under_way.len() >= MOST {
            self.under_way.remove(0);
        }
        self.under_way.push(Statement {
            mark,
            hash,
            span,
            began: Instant::now(),
            #[cfg(feature = "metrics")]
            operation,
            #[cfg(feature = "metrics")]
            collection,
        });
    }

    fn finish(&mut self, query: &dyn DebugQuery, error: Option<&Error>) {
        let hash = self.read(query);
        // One that was dropped never ends, unless it has a mark, so the last of equal ones does.
        let mark = Mark::current();
        let is_same = |statement: &Statement| {
            statement.mark == mark && (mark.is_some() || statement.hash == hash)
        };
        let Some(at) = self.under_way.iter().rposition(is_same) else {
            return;
        };
        let statement = self.under_way.remove(at);
        let error_type = error.map(|error| match error.sqlstate() {
            Some(sqlstate) => sqlstate,
            None if is_dropped(error) => "dropped",
            None => "_OTHER",
        });
        if let Some(error_type) = error_type {
            statement.span.record("otel.status_code", "ERROR");
            statement.span.record("error.type", error_type);
        }
        if let Some(sqlstate) = error.and_then(Error::sqlstate) {
            statement.span.record("db.response.status_code", sqlstate);
        }
        let took = statement.began.elapsed();
        self.telemetry.server.record(&statement, error_type, took);
    }

    /// Reads the SQL of an event, and returns its hash.
    fn read(&mut self, query: &dyn DebugQuery) -> u64 {
        self.sql.clear();
        // A string takes all that is written to it.
        let _ = write!(self.sql, "{query}");
        // Diesel's own connections print the binds behind the SQL.
        if let Some(binds) = self.sql.find(" -- binds: ") {
            self.sql.truncate(binds);
        }
        let mut hasher = DefaultHasher::new();
        self.sql.hash(&mut hasher);
        hasher.finish()
    }

    fn span(&self, operation: Option<&'static str>, collection: Option<&str>) -> Span {
        let server = &self.telemetry.server;
        let summary = match (operation, collection) {
            (Some(operation), Some(collection)) => format!("{operation} {collection}"),
            (Some(operation), None) => operation.to_owned(),
            (None, _) => "postgresql".to_owned(),
        };
        tracing::info_span!(
            target: "diesel_neon::query",
            "query",
            otel.name = summary,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = SYSTEM,
            db.namespace = server.namespace,
            db.operation.name = operation,
            db.collection.name = collection,
            db.query.summary = summary,
            db.query.text = self.telemetry.with_query_text.then_some(self.sql.as_str()),
            db.response.status_code = Empty,
            server.address = server.address,
            server.port = server.port,
            "error.type" = Empty,
        )
    }
}

impl Server {
    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self)]
    fn record(&self, _: &Statement, _: Option<&str>, _: Duration) {}

    #[cfg(feature = "metrics")]
    fn record(&self, statement: &Statement, error_type: Option<&str>, took: Duration) {
        let mut labels = vec![
            metrics::Label::new("db.system.name", SYSTEM),
            metrics::Label::new("db.namespace", self.namespace.clone()),
            metrics::Label::new("server.address", self.address.clone()),
        ];
        let mut label = |name: &'static str, value: Option<String>| {
            labels.extend(value.map(|value| metrics::Label::new(name, value)));
        };
        label("server.port", self.port.map(|port| port.to_string()));
        label("db.operation.name", statement.operation.map(str::to_owned));
        label(
            "db.collection.name",
            statement.collection.as_deref().map(str::to_owned),
        );
        label("error.type", error_type.map(str::to_owned));
        metrics::histogram!(DURATION, labels).record(took);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("telemetry", &self.telemetry)
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "metrics")]
const DURATION: &str = "db.client.operation.duration";

const SYSTEM: &str = "postgresql";

/// How many statements of one connection are kept that have not ended: those that were dropped never do.
const MOST: usize = 128;

#[cfg(all(test, feature = "http"))]
mod tests {
    use diesel::connection::StrQueryHelper;

    use super::*;

    #[test]
    fn statements_with_the_same_sql_are_told_apart() {
        let url = DatabaseUrl::parse("postgresql://u:p@h.example/d").unwrap();
        let mut reporter = Reporter {
            telemetry: QueryTelemetry::new(&url),
            sql: String::new(),
            under_way: Vec::new(),
        };
        let query = StrQueryHelper::new("SELECT 1");
        let marks: Vec<_> = (0..MOST * 2).map(|_| Mark::new()).collect();
        for mark in &marks {
            let event = InstrumentationEvent::start_query(&query);
            mark.during(|| reporter.on_connection_event(event));
        }
        // The first comes first, not the last of equal ones.
        for (index, mark) in marks.iter().enumerate() {
            assert_eq!(reporter.under_way[0].mark, Some(*mark), "{index}");
            let event = InstrumentationEvent::finish_query(&query, None);
            mark.during(|| reporter.on_connection_event(event));
        }
        assert!(reporter.under_way.is_empty());
        assert_eq!(Mark::current(), None);
    }
}
