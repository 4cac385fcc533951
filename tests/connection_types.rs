//! Types with OIDs that only the database knows, such as enums.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::io::Write;
use std::time::Duration;

use common::{HANG, TRACKED, connect, counted, pool, routes, start};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::serialize::{self, IsNull, Output, ToSql, WriteTuple};
use diesel::sql_query;
use diesel::sql_types::{Array, Integer, Nullable, Record, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::DatabaseErrorExt;
use futures_util::future::{join, select};
use futures_util::poll;
use tokio::time::timeout;

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood"))]
pub struct MoodType;

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood", schema = "elsewhere"))]
pub struct OtherMoodType;

#[derive(AsExpression, Clone, Copy, Debug, FromSqlRow, PartialEq)]
#[diesel(sql_type = MoodType)]
#[diesel(sql_type = OtherMoodType)]
pub enum Mood {
    Happy,
    Sad,
}

macro_rules! mood {
    ($type:ty) => {
        impl ToSql<$type, Pg> for Mood {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(match self {
                    Mood::Happy => b"happy",
                    Mood::Sad => b"sad",
                })?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<$type, Pg> for Mood {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                match value.as_bytes() {
                    b"happy" => Ok(Mood::Happy),
                    b"sad" => Ok(Mood::Sad),
                    other => Err(format!("{other:?} is no mood").into()),
                }
            }
        }
    };
}
mood!(MoodType);
mood!(OtherMoodType);

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "person"))]
pub struct PersonType;

#[derive(AsExpression, Clone, Debug, FromSqlRow, PartialEq)]
#[diesel(sql_type = PersonType)]
pub struct Person(i32, Mood);

impl ToSql<PersonType, Pg> for Person {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        WriteTuple::<(Integer, MoodType)>::write_tuple(&(self.0, self.1), &mut out.reborrow())
    }
}

impl FromSql<PersonType, Pg> for Person {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let (id, mood) = FromSql::<Record<(Integer, MoodType)>, Pg>::from_sql(value)?;
        Ok(Person(id, mood))
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::{MoodType, OtherMoodType, PersonType};

    moods (id) {
        id -> Integer,
        mood -> MoodType,
        other -> Nullable<OtherMoodType>,
        history -> Array<MoodType>,
        person -> Nullable<PersonType>,
        positive -> Nullable<Integer>,
        span -> Nullable<Range<Integer>>,
        tags -> Array<Nullable<Text>>,
    }
}

const SCHEMA: &str = "CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE SCHEMA elsewhere; \
     GRANT USAGE ON SCHEMA elsewhere TO PUBLIC; \
     CREATE TYPE elsewhere.mood AS ENUM ('happy', 'sad'); \
     CREATE TYPE person AS (id INTEGER, mood mood); \
     CREATE DOMAIN positive AS INTEGER CHECK (VALUE > 0); \
     CREATE TABLE moods (id SERIAL PRIMARY KEY, mood mood NOT NULL, other elsewhere.mood, \
         history mood[] NOT NULL, person person, positive positive, span INT4RANGE, tags TEXT[] NOT NULL); \
     GRANT ALL ON moods, moods_id_seq TO PUBLIC";

type Moods = (
    i32,
    Mood,
    Option<Mood>,
    Vec<Mood>,
    Option<Person>,
    Option<i32>,
    Option<(std::collections::Bound<i32>, std::collections::Bound<i32>)>,
    Vec<Option<String>>,
);

#[tokio::test]
async fn enums_and_composites_round_trip_on_every_route() {
    let neon = start().await;
    neon.sql(SCHEMA).await.unwrap();
    for (route, url) in routes(&neon) {
        neon.sql("TRUNCATE moods").await.unwrap();
        let before = neon.counters();
        let connection = &mut connect(&url).await;
        for round in 0..3 {
            let person = Person(7, Mood::Sad);
            let inserted: Moods = diesel::insert_into(moods::table)
                .values((
                    moods::mood.eq(Mood::Happy),
                    moods::other.eq(Some(Mood::Sad)),
                    moods::history.eq(vec![Mood::Sad, Mood::Happy, Mood::Sad]),
                    moods::person.eq(Some(person.clone())),
                    moods::positive.eq(Some(3)),
                    moods::span.eq(Some((
                        std::ops::Bound::Included(1),
                        std::ops::Bound::Excluded(9),
                    ))),
                    moods::tags.eq(vec![Some("a".to_owned()), None]),
                ))
                .returning(moods::all_columns)
                .get_result(connection)
                .await
                .unwrap_or_else(|error| panic!("{route}, {round}: {error:?}"));
            assert_eq!(
                (inserted.1, inserted.2),
                (Mood::Happy, Some(Mood::Sad)),
                "{route}"
            );
            assert_eq!(inserted.3, [Mood::Sad, Mood::Happy, Mood::Sad], "{route}");
            assert_eq!(inserted.4, Some(person), "{route}");
            let found = moods::table
                .filter(moods::mood.eq_any(vec![Mood::Happy]))
                .filter(moods::id.eq(inserted.0));
            assert_eq!(
                found.first::<Moods>(connection).await,
                Ok(inserted),
                "{route}"
            );
        }
        if url.contains("-pooler") {
            // The lookup, and the names of both statements if names are safe.
            let named = counted(&neon, &url, before).named_parses;
            assert_eq!(named, if TRACKED { 3 } else { 1 }, "{route}");
        }
    }
}

#[tokio::test]
async fn a_large_result_with_such_a_type_does_not_hang() {
    let neon = start().await;
    neon.sql(SCHEMA).await.unwrap();
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let moods = diesel::dsl::sql::<(MoodType, Text)>(
            "SELECT 'sad'::mood, repeat('x', 100) FROM generate_series(1, 50000)",
        );
        let loaded = timeout(HANG, moods.load::<(Mood, String)>(connection)).await;
        assert_eq!(loaded.unwrap().unwrap().len(), 50_000, "{route}");
    }
}

#[tokio::test]
async fn types_are_looked_up_once_a_connection_and_all_in_one_flight() {
    let neon = start().await;
    neon.sql(SCHEMA).await.unwrap();
    let url = neon.pooled_url();
    let connection = &mut connect(&url).await;
    for flights in [2, 1, 1] {
        let before = neon.counters();
        let values = (
            Mood::Sad.into_sql::<MoodType>(),
            Mood::Sad.into_sql::<OtherMoodType>(),
            Person(1, Mood::Happy).into_sql::<PersonType>(),
        );
        let back: (Mood, Mood, Person) =
            diesel::select(values).get_result(connection).await.unwrap();
        assert_eq!(back.2, Person(1, Mood::Happy));
        assert_eq!(counted(&neon, &url, before).flights, flights);
    }
}

#[tokio::test]
async fn a_type_that_is_not_there_is_an_error_and_no_more() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let mood = || diesel::select(Mood::Sad.into_sql::<MoodType>());
        let error = mood().get_result::<Mood>(connection).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("42704"), "{route}: {error:?}");
        let elsewhere = diesel::select(Mood::Sad.into_sql::<OtherMoodType>());
        let error = elsewhere.get_result::<Mood>(connection).await.unwrap_err();
        assert!(
            error.to_string().contains("elsewhere"),
            "{route}: {error:?}"
        );
        let none = diesel::select(None::<i32>.into_sql::<Nullable<Integer>>());
        assert_eq!(none.get_result::<Option<i32>>(connection).await, Ok(None));
        let array = diesel::select(vec![1].into_sql::<Array<Integer>>());
        assert_eq!(array.get_result::<Vec<i32>>(connection).await, Ok(vec![1]));
    }
}

/// Sends a mood in each of the ways in which its OID gets to the server.
async fn moods_of(connection: &mut diesel_neon::Connection) -> QueryResult<()> {
    let one = diesel::select(Mood::Sad.into_sql::<MoodType>());
    assert_eq!(one.get_result::<Mood>(connection).await?, Mood::Sad);
    let many = diesel::select(vec![Mood::Sad, Mood::Happy].into_sql::<Array<MoodType>>());
    let many: Vec<Mood> = many.get_result(connection).await?;
    assert_eq!(many, [Mood::Sad, Mood::Happy]);
    let person = diesel::select(Person(1, Mood::Happy).into_sql::<PersonType>());
    let person: Person = person.get_result(connection).await?;
    assert_eq!(person, Person(1, Mood::Happy));
    let insert = diesel::insert_into(moods::table).values((
        moods::mood.eq(Mood::Happy),
        moods::history.eq(vec![Mood::Sad]),
        moods::tags.eq(vec![None::<String>]),
    ));
    insert.execute(connection).await.map(drop)
}

/// Makes a type anew, as migrations do, so that its OID changes.
const ANEW: [&str; 2] = [
    "ALTER TABLE moods DROP person, DROP mood, DROP history; DROP TYPE person; DROP TYPE mood; \
     CREATE TYPE mood AS ENUM ('sad', 'happy', 'calm'); \
     CREATE TYPE person AS (id INTEGER, mood mood); \
     ALTER TABLE moods ADD mood mood, ADD history mood[], ADD person person",
    "ALTER TYPE mood RENAME TO mood_before; CREATE TYPE mood AS ENUM ('happy', 'sad'); \
     ALTER TABLE moods DROP person, ALTER mood TYPE mood USING mood::text::mood, \
         ALTER history TYPE mood[] USING history::text::mood[]; \
     ALTER TYPE person ALTER ATTRIBUTE mood TYPE mood; ALTER TABLE moods ADD person person",
];

#[tokio::test]
async fn a_type_that_was_made_anew_is_looked_up_again() {
    let neon = start().await;
    for anew in ANEW {
        for (route, url) in routes(&neon) {
            let fresh = "DROP TABLE IF EXISTS moods; DROP TYPE IF EXISTS person, mood, mood_before, positive; \
                 DROP SCHEMA IF EXISTS elsewhere CASCADE";
            neon.sql(fresh).await.unwrap();
            neon.sql(SCHEMA).await.unwrap();
            let connection = &mut connect(&url).await;
            for _ in 0..3 {
                moods_of(connection).await.unwrap();
            }
            neon.sql(anew).await.unwrap();
            for round in 0..3 {
                let done = moods_of(connection).await;
                assert_eq!(done, Ok(()), "{route}, {round}, {anew}");
            }
        }
    }
}

#[tokio::test]
async fn a_transaction_that_makes_a_type_anew_goes_on() {
    let neon = start().await;
    let create = "CREATE TYPE mood AS ENUM ('happy', 'sad')";
    let one = async |connection: &mut diesel_neon::Connection| {
        let one = diesel::select(Mood::Sad.into_sql::<MoodType>());
        one.get_result::<Mood>(connection).await
    };
    for (route, url) in routes(&neon) {
        neon.sql("DROP TYPE IF EXISTS mood").await.unwrap();
        let connection = &mut connect(&url).await;
        connection.batch_execute(create).await.unwrap();
        one(connection).await.unwrap();
        for is_kept in [true, false] {
            let anew = connection.transaction(async |connection| {
                one(connection).await?;
                let drop = format!("DROP TYPE mood; {create}");
                connection.batch_execute(&drop).await?;
                one(connection).await?;
                match is_kept {
                    true => Ok(()),
                    false => Err(Error::RollbackTransaction),
                }
            });
            let anew = anew.await;
            let is_as_wanted = anew == is_kept.then_some(()).ok_or(Error::RollbackTransaction);
            assert!(is_as_wanted, "{route}: {anew:?}");
            let later = connection.transaction(async |connection| {
                sql_query("SELECT 1").execute(connection).await?;
                one(connection).await
            });
            assert_eq!(later.await, Ok(Mood::Sad), "{route}, {is_kept}");
        }
    }
}

#[tokio::test]
async fn a_type_that_is_made_anew_behind_its_look_up_is_looked_up_again() {
    let neon = start().await;
    let create = "CREATE TYPE mood AS ENUM ('happy', 'sad')";
    let one = || diesel::select(Mood::Sad.into_sql::<MoodType>());
    for (route, url) in routes(&neon) {
        neon.sql("DROP TYPE IF EXISTS mood").await.unwrap();
        let connection = &mut connect(&url).await;
        connection.batch_execute(create).await.unwrap();
        let anew = format!("DROP TYPE mood; {create}");
        let (mut first, mut second) = (&*connection, &*connection);
        // The look-up is sent, and the statement behind it is not.
        let mut looked_up = Box::pin(one().get_result::<Mood>(&mut first));
        assert!(poll!(looked_up.as_mut()).is_pending());
        second.batch_execute(&anew).await.unwrap();
        let _ = looked_up.await;
        let later = connection.transaction(async |connection| {
            sql_query("SELECT 1").execute(connection).await?;
            one().get_result::<Mood>(connection).await
        });
        assert_eq!(later.await, Ok(Mood::Sad), "{route}");
    }
}

#[tokio::test]
async fn a_statement_that_waits_to_be_sent_has_the_types_that_are_made_anew_in_front_of_it() {
    let neon = start().await;
    let create = "CREATE TYPE mood AS ENUM ('happy', 'sad')";
    let anew = format!("DROP TYPE mood; {create}");
    let one = || diesel::select(Mood::Sad.into_sql::<MoodType>());
    for (route, url) in routes(&neon) {
        neon.sql("DROP TYPE IF EXISTS mood").await.unwrap();
        let connection = &mut connect(&url).await;
        connection.batch_execute(create).await.unwrap();
        for _ in 0..2 {
            one().get_result::<Mood>(connection).await.unwrap();
        }
        let done = connection.transaction(async |connection| {
            let shared = &*connection;
            let (mut first, mut second, mut third) = (shared, shared, shared);
            let mut begun = Box::pin(first.batch_execute("SELECT 1"));
            assert!(poll!(begun.as_mut()).is_pending());
            // Both wait for the BEGIN that rides with the first.
            let mut waiting = Box::pin(one().get_result::<Mood>(&mut second));
            assert!(poll!(waiting.as_mut()).is_pending());
            let mut changed = Box::pin(third.batch_execute(&anew));
            assert!(poll!(changed.as_mut()).is_pending());
            begun.await?;
            assert!(poll!(changed.as_mut()).is_pending());
            let mood = waiting.await?;
            changed.await.map(|()| mood)
        });
        assert_eq!(done.await, Ok(Mood::Sad), "{route}");
    }
}

#[tokio::test]
async fn changes_without_end_keep_no_statement_with_a_looked_up_type_waiting() {
    let neon = start().await;
    neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad')")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        let connection = connect(&url).await;
        let (mut first, mut second) = (&connection, &connection);
        let changes = async {
            loop {
                let change = first.batch_execute("DROP SEQUENCE IF EXISTS nothing");
                change.await.unwrap();
            }
        };
        let one = diesel::select(Mood::Sad.into_sql::<MoodType>());
        let one = one.get_result::<Mood>(&mut second);
        let done = timeout(HANG, select(Box::pin(changes), Box::pin(one))).await;
        assert!(done.is_ok(), "{route}");
    }
}

#[tokio::test]
async fn a_statement_outlives_types_that_are_made_anew_behind_each_look_up() {
    let neon = start().await;
    let create = "CREATE TYPE mood AS ENUM ('happy', 'sad')";
    for (route, url) in routes(&neon) {
        let connection = connect(&url).await;
        let (mut first, mut second) = (&connection, &connection);
        let anew = format!("DROP TYPE IF EXISTS mood; {create}");
        second.batch_execute(&anew).await.unwrap();
        let one = diesel::select(Mood::Sad.into_sql::<MoodType>());
        let mut looked_up = Box::pin(one.get_result::<Mood>(&mut first));
        for _ in 0..6 {
            assert!(poll!(looked_up.as_mut()).is_pending());
            second.batch_execute(&anew).await.unwrap();
        }
        assert_eq!(looked_up.await, Ok(Mood::Sad), "{route}");
    }
}

#[tokio::test]
async fn look_ups_wait_for_each_other_where_statements_do() {
    let neon = start().await;
    neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad')")
        .await
        .unwrap();
    let pool = pool(&neon.pooled_url(), |policy| policy.max_size(2));
    let (mut first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(sql_query("SELECT 1").execute(&mut first).await, Ok(1));
    // It was opened before the pooler was known.
    let second: &diesel_neon::Connection = &second;
    neon.set_latency(Duration::from_millis(50));
    let before = neon.counters();
    let one = async || {
        let one = diesel::select(Mood::Sad.into_sql::<MoodType>());
        assert_eq!(one.get_result(&mut { second }).await, Ok(Mood::Sad));
    };
    join(one(), one()).await;
    neon.set_latency(Duration::ZERO);
    let flights = counted(&neon, &neon.pooled_url(), before).flights;
    assert_eq!(flights, if TRACKED { 2 } else { 4 });
}

#[tokio::test]
async fn a_type_that_was_made_anew_is_noticed_behind_the_failure_of_another_statement() {
    let neon = start().await;
    neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO PUBLIC")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        neon.sql("DROP TYPE IF EXISTS elsewhere.mood; CREATE TYPE elsewhere.mood AS ENUM ('happy', 'sad')")
            .await
            .unwrap();
        let connection = &mut connect(&url).await;
        let one = || diesel::select(Mood::Sad.into_sql::<OtherMoodType>());
        let wrong = || sql_query("SELECT $1 + 1").bind::<MoodType, _>(Mood::Sad);
        for _ in 0..3 {
            one().get_result::<Mood>(connection).await.unwrap();
            wrong().execute(connection).await.unwrap_err();
        }
        neon.sql("DROP TYPE elsewhere.mood; CREATE TYPE elsewhere.mood AS ENUM ('happy', 'sad')")
            .await
            .unwrap();
        // There is no such operator, or the type is another one than it was.
        wrong().execute(connection).await.unwrap_err();
        let before = neon.counters();
        for round in 0..3 {
            let done = one().get_result(connection).await;
            assert_eq!(done, Ok(Mood::Sad), "{route}, {round}");
        }
        if route == "direct" {
            assert_eq!(counted(&neon, &url, before).named_parses, 1);
        }
    }
}

#[tokio::test]
async fn a_transaction_that_is_begun_anew_for_a_type_goes_on_beside_a_text_with_the_word_begin() {
    let neon = start().await;
    neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad')")
        .await
        .unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut connect(&url).await;
        let one = || diesel::select(Mood::Sad.into_sql::<MoodType>());
        for _ in 0..2 {
            one().get_result::<Mood>(connection).await.unwrap();
        }
        neon.sql("DROP TYPE mood; CREATE TYPE mood AS ENUM ('happy', 'sad')")
            .await
            .unwrap();
        let done = connection.transaction(async |connection| {
            let shared = &*connection;
            let (mut one_of_two, mut other) = (shared, shared);
            let before = neon.counters();
            let mut first = Box::pin(one().get_result::<Mood>(&mut one_of_two));
            // It fails, and the type is looked up.
            while counted(&neon, &url, before).flights < 2 {
                assert!(poll!(first.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
            let second = other.batch_execute("SELECT 'begin'; SELECT 1");
            let (second, first) = join(second, first).await;
            second.and(first)
        });
        let done = timeout(HANG, done).await.unwrap();
        assert_eq!(done, Ok(Mood::Sad), "{url}");
    }
}

#[tokio::test]
async fn a_statement_does_not_run_behind_the_end_of_its_transaction_that_was_begun_anew_for_a_type()
{
    let neon = start().await;
    neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE TABLE moods (mood mood); GRANT ALL ON moods TO PUBLIC")
        .await
        .unwrap();
    let url = neon.url();
    let connection = &mut connect(&url).await;
    let insert = || sql_query("INSERT INTO moods VALUES ($1)").bind::<MoodType, _>(Mood::Sad);
    insert().execute(connection).await.unwrap();
    neon.sql("DROP TABLE moods; DROP TYPE mood; CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE TABLE moods (mood mood); GRANT ALL ON moods TO PUBLIC")
        .await
        .unwrap();
    let done = connection.transaction(async |connection| {
        let shared = &*connection;
        let (mut one, mut other) = (shared, shared);
        let before = neon.counters();
        let mut inserted = Box::pin(insert().execute(&mut one));
        // It fails, and the type is looked up.
        while counted(&neon, &url, before).flights < 2 {
            assert!(poll!(inserted.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        let (ended, inserted) = join(other.batch_execute("ROLLBACK"), inserted).await;
        ended.and(inserted)
    });
    timeout(HANG, done).await.unwrap().unwrap_err();
    let kept = neon.sql("SELECT count(*) FROM moods").await.unwrap();
    assert_eq!(kept[0][0].as_deref(), Some("0"));
}

#[tokio::test]
async fn a_type_that_was_made_anew_is_looked_up_again_in_a_transaction() {
    let neon = start().await;
    let anew = "DROP TYPE mood; CREATE TYPE mood AS ENUM ('happy', 'sad')";
    neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad')")
        .await
        .unwrap();
    let one = || diesel::select(Mood::Sad.into_sql::<MoodType>());
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        for _ in 0..3 {
            one().get_result::<Mood>(connection).await.unwrap();
        }
        // No statement has run in the transaction yet.
        neon.sql(anew).await.unwrap();
        let insert = diesel::insert_into(common::users::table);
        let first = connection
            .transaction(async |connection| {
                one().get_result::<Mood>(connection).await?;
                let insert = insert.values(common::users::name.eq(route));
                insert.execute(connection).await
            })
            .await;
        assert_eq!(first, Ok(1), "{route}");
        // A statement has run in the transaction, so that only the caller can begin it again.
        neon.sql(anew).await.unwrap();
        let mut later = async || {
            connection
                .transaction(async |connection| {
                    sql_query("SELECT 1").execute(connection).await?;
                    one().get_result::<Mood>(connection).await
                })
                .await
        };
        let failed = later().await.unwrap_err();
        assert!(
            failed.to_string().contains("cache lookup failed"),
            "{route}: {failed}"
        );
        assert_eq!(later().await, Ok(Mood::Sad), "{route}");
        // A dropped type is an error, and the transaction has failed.
        neon.sql("DROP TYPE mood").await.unwrap();
        let gone = connection
            .transaction(async |connection| {
                one().get_result::<Mood>(connection).await.unwrap_err();
                let next = sql_query("SELECT 1").execute(connection).await;
                assert_eq!(next.unwrap_err().sqlstate(), Some("25P02"), "{route}");
                Err::<(), _>(diesel::result::Error::RollbackTransaction)
            })
            .await;
        assert!(gone.is_err());
        neon.sql("CREATE TYPE mood AS ENUM ('happy', 'sad')")
            .await
            .unwrap();
        assert_eq!(one().get_result(connection).await, Ok(Mood::Sad), "{route}");
    }
}
