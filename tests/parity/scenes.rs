//! Differences that a walk does not meet: one scene each, in which both connections do the same.

use std::io::Write;
use std::time::Duration;

use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::methods::LoadQuery;
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager,
};
use diesel_neon::DatabaseErrorExt;
use futures_util::future::join;
use neon_sim::NeonSim;
use tokio::time::timeout;

use crate::common::{HANG, connect};
use crate::subject::{Nest, Subject, Watched, rows, tell};

/// The headings of the page that have a scene of their own.
pub const SCENES: [&str; 14] = [
    "A BEGIN that fails is told by the first statement",
    "An empty transaction sends nothing",
    "A transaction that was ended by hand is broken",
    "A COPY that nobody reads is an error that says what to call",
    "A session that the server has ended is told as closed",
    "LISTEN is refused through a pooler",
    "A statement that was given up costs the connection",
    "A type that was made anew is looked up again",
    "A type that is missing is named",
    "Behind a pooler that does not track names, statements wait for each other",
    "The only row of a statement that fails is not handed out",
    "The first statement has no name where it is not known if there is a pooler",
    "A session in UTC keeps the server's name for it",
    "A connection that does not come about says what to do",
];

pub async fn begin_that_fails<C: Subject>(c: &mut C) -> [bool; 2] {
    c.batch_execute("BEGIN").await.unwrap();
    c.batch_execute("SELECT nonsense").await.unwrap_err();
    let begun = C::TransactionManager::begin_transaction(c).await.is_ok();
    let ran = rows(c, sql_query("SELECT 1")).await.is_ok();
    let _ = C::TransactionManager::rollback_transaction(c).await;
    c.batch_execute("ROLLBACK").await.unwrap();
    [begun, ran]
}

/// Returns whether a transaction that was begun by hand is still open behind an empty one.
pub async fn empty<C: Subject>(c: &mut C) -> bool {
    let nothing = Nest {
        parts: Vec::new(),
        gives_up: false,
    };
    c.batch_execute("BEGIN").await.unwrap();
    c.nest(&nothing).await.unwrap();
    let open = c.batch_execute("SAVEPOINT a").await.is_ok();
    c.batch_execute("ROLLBACK").await.unwrap();
    open
}

/// Returns Diesel's depth of transactions after two nested ones, of which a COMMIT by hand ended the outer.
pub async fn ended_by_hand<C: Subject>(c: C) -> String {
    let mut watched = Watched::new(c);
    let c = &mut watched.connection;
    for _ in 0..2 {
        C::TransactionManager::begin_transaction(c).await.unwrap();
        c.batch_execute("SELECT 1").await.unwrap();
    }
    c.batch_execute("COMMIT").await.unwrap();
    C::TransactionManager::commit_transaction(c)
        .await
        .unwrap_err();
    watched.outcome(Ok(String::new())).depth
}

pub async fn copy<C: Subject>(c: &mut C) -> String {
    let copy = sql_query("COPY (SELECT 1) TO STDOUT");
    tell(&c.execute_returning_count(copy).await.unwrap_err())
}

pub async fn terminated<C: Subject>(c: &mut C) -> Error {
    let end = sql_query("SELECT pg_terminate_backend(pg_backend_pid())");
    c.execute_returning_count(end).await.unwrap_err()
}

/// Returns the result of the statement behind one that was given up.
pub async fn given_up<C: Subject>(c: &mut C) -> QueryResult<String> {
    let sleep = c.execute_returning_count(sql_query("SELECT pg_sleep(5)"));
    let given_up = timeout(Duration::from_millis(20), sleep).await;
    given_up.unwrap_err();
    timeout(HANG, rows(c, sql_query("SELECT 1"))).await.unwrap()
}

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "weather"))]
pub struct WeatherType;

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "weather", schema = "nowhere"))]
pub struct MissingType;

#[derive(AsExpression, Clone, Copy, Debug)]
#[diesel(sql_type = WeatherType)]
#[diesel(sql_type = MissingType)]
pub struct Sunny;

macro_rules! sunny {
    ($type:ty) => {
        impl ToSql<$type, Pg> for Sunny {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(b"sunny")?;
                Ok(IsNull::No)
            }
        }
    };
}
sunny!(WeatherType);
sunny!(MissingType);

pub async fn made_anew<C: Subject>(c: &mut C, neon: &NeonSim) -> QueryResult<String> {
    let make = "DROP TYPE IF EXISTS weather; CREATE TYPE weather AS ENUM ('sunny')";
    let mut done = Ok(String::new());
    for _ in 0..2 {
        neon.sql(make).await.unwrap();
        done = rows(c, diesel::select(Sunny.into_sql::<WeatherType>())).await;
    }
    done
}

pub async fn missing<C: Subject>(c: &mut C) -> String {
    let missing = diesel::select(Sunny.into_sql::<MissingType>());
    rows(c, missing).await.unwrap_err().to_string()
}

pub async fn zone<C: Subject>(c: &mut C) -> String {
    rows(c, sql_query("SHOW TimeZone")).await.unwrap()
}

/// Returns the first row of an INSERT that fails when it commits.
pub async fn only_row<C>(c: &mut C) -> QueryResult<i32>
where
    C: Subject,
    for<'a> diesel::expression::SqlLiteral<Integer>: LoadQuery<'a, C, i32>,
{
    c.batch_execute(
        "CREATE TEMPORARY TABLE wholes (id INTEGER PRIMARY KEY); \
         CREATE TEMPORARY TABLE parts (id INTEGER REFERENCES wholes DEFERRABLE INITIALLY DEFERRED)",
    )
    .await
    .unwrap();
    let insert = "INSERT INTO parts VALUES (1) RETURNING id";
    diesel::dsl::sql::<Integer>(insert).get_result(c).await
}

/// Returns the events of the first statement.
pub async fn first<C: Subject>(c: C) -> Vec<String> {
    let mut watched = Watched::new(c);
    let one = diesel::select(1.into_sql::<Integer>());
    let done = rows(&mut watched.connection, one).await;
    watched.outcome(done).events
}

/// Returns how many flights two statements take that are begun at the same time.
async fn flights_of_two(url: &str, neon: &NeonSim) -> u64 {
    let connection = &mut connect(url).await;
    assert!(rows(connection, sql_query("SELECT 1")).await.is_ok());
    // No answer comes in between.
    neon.set_latency(Duration::from_millis(50));
    let before = neon.counters();
    let (mut one, mut other) = (&*connection, &*connection);
    let both = join(
        one.batch_execute("SELECT 1"),
        other.batch_execute("SELECT 2"),
    )
    .await;
    neon.set_latency(Duration::ZERO);
    assert_eq!(both, (Ok(()), Ok(())));
    let counted = neon.counters() - before;
    counted.direct.flights + counted.pooled.flights
}

pub async fn play(neon: &NeonSim) {
    let url = &neon.postgres_url();
    let theirs = async |url: &str| AsyncPgConnection::establish(url).await.unwrap();
    let (a, b) = (&mut connect(url).await, &mut theirs(url).await);

    assert_eq!(begin_that_fails(a).await, [true, false]);
    assert_eq!(begin_that_fails(b).await, [false, false]);
    assert_eq!((empty(a).await, empty(b).await), (true, false));
    assert_eq!(ended_by_hand(connect(url).await).await, "in error");
    assert_eq!(ended_by_hand(theirs(url).await).await, "Ok(Some(1))");
    assert!(copy(a).await.contains("copy_out()"));
    assert!(copy(b).await.contains("unexpected message from server"));

    let (ours, other) = (made_anew(a, neon).await, made_anew(b, neon).await);
    assert!(ours.is_ok(), "{ours:?}");
    assert!(tell(&other.unwrap_err()).contains("cache lookup failed"));
    assert!(missing(a).await.contains("nowhere"));
    assert!(!missing(b).await.contains("nowhere"));
    assert_eq!(only_row(a).await.unwrap_err().sqlstate(), Some("23503"));
    assert_eq!(only_row(b).await, Ok(1));

    assert_eq!(flights_of_two(&neon.url(), neon).await, 1);
    assert_eq!(flights_of_two(&neon.pooled_url(), neon).await, 2);

    let cached = |events: &[String]| events.iter().any(|event| event.starts_with("cache "));
    assert!(!cached(&first(connect(url).await).await));
    assert!(cached(&first(theirs(url).await).await));

    // The bytes of "GMT" and "UTC" differ.
    assert!(zone(a).await.contains("474d54"));
    assert!(zone(b).await.contains("555443"));

    let given_up_to = given_up(a).await.unwrap_err();
    assert!(given_up_to.is_connection_lost(), "{given_up_to}");
    assert!(given_up(b).await.is_ok());

    let closed = |error: &Error| {
        matches!(
            error,
            Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
        )
    };
    let ours = terminated(&mut connect(url).await).await;
    assert!(closed(&ours) && ours.sqlstate() == Some("57P01"), "{ours}");
    assert!(!closed(&terminated(b).await));

    let pooled = &neon.pgbouncer_url();
    for listens in ["LISTEN a", "-- a\nLISTEN a", "SELECT 1; /* b */ LISTEN a"] {
        let mut connection = connect(&neon.pooled_url()).await;
        let refused = connection.batch_execute(listens).await.unwrap_err();
        assert!(refused.to_string().contains("direct endpoint"), "{refused}");
    }
    let listens = "/* a */ LISTEN a";
    let mut connection = connect(&neon.pooled_url()).await;
    let refused = sql_query(listens).execute(&mut connection).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("direct endpoint"), "{refused}");
    theirs(pooled)
        .await
        .batch_execute("LISTEN a")
        .await
        .unwrap();

    let wrong = url.replace(neon.password(), "wrong");
    let Err(ours) = diesel_neon::Connection::establish(&wrong).await else {
        panic!("the password is wrong");
    };
    assert!(matches!(ours, ConnectionError::BadConnection(_)), "{ours}");
    assert!(
        ours.to_string()
            .contains("check the user name and the password"),
        "{ours}"
    );
    let Err(other) = AsyncPgConnection::establish(&wrong).await else {
        panic!("the password is wrong");
    };
    assert!(!other.to_string().contains("check"), "{other}");
}
