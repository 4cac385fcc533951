//! `Connection`, on every route to a database.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use common::{HANG, connect, routes, start, users};
use diesel::connection::{CacheSize, InstrumentationEvent};
use diesel::pg::sql_types::{Bytea, Timestamptz};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Numeric, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SaveChangesDsl, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseErrorExt};
use futures_util::future::try_join;
use futures_util::{StreamExt, TryStreamExt};
use std::sync::{Arc, Mutex};
use tokio::time::timeout;

#[derive(Debug, PartialEq, QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    n: i32,
}

#[derive(AsChangeset, Clone, Copy, Debug, Identifiable)]
#[diesel(table_name = users)]
struct Rename<'a> {
    id: i32,
    name: &'a str,
}

#[tokio::test]
async fn everyday_statements_work_on_every_route() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        neon.sql("TRUNCATE users").await.unwrap();
        let connection = &mut connect(&url).await;
        let one = diesel::select(1.into_sql::<Integer>());
        assert_eq!(one.get_result(connection).await, Ok(1), "{route}");
        let id: i32 = diesel::insert_into(users::table)
            .values(users::name.eq("Ada"))
            .returning(users::id)
            .get_result(connection)
            .await
            .unwrap();
        let saved: (i32, String) = Rename { id, name: "Grace" }
            .save_changes(connection)
            .await
            .unwrap();
        assert_eq!(saved, (id, "Grace".to_owned()), "{route}");
        let batch = vec![users::name.eq("Linus"), users::name.eq("Margaret")];
        let inserted = diesel::insert_into(users::table).values(batch);
        assert_eq!(inserted.execute(connection).await, Ok(2), "{route}");
        let names = users::table.select(users::name).order(users::id);
        let all: Vec<String> = names.load(connection).await.unwrap();
        assert_eq!(all, ["Grace", "Linus", "Margaret"], "{route}");
        let first: String = names.first(connection).await.unwrap();
        assert_eq!(first, "Grace", "{route}");
        let none = users::table
            .find(-1)
            .first::<(i32, String)>(connection)
            .await;
        assert_eq!(none, Err(Error::NotFound), "{route}");
        let numbers: Vec<Number> = sql_query("SELECT n FROM generate_series(1, $1) AS n")
            .bind::<Integer, _>(3)
            .load(connection)
            .await
            .unwrap();
        assert_eq!(numbers, [1, 2, 3].map(|n| Number { n }), "{route}");
        connection
            .batch_execute("SELECT 1; SELECT 2")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn values_of_all_kinds_come_back_as_they_went() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        macro_rules! round_trip {
            ($type:ty, $rust:ty, $($value:expr),* $(,)?) => {$(
                let value: $rust = $value;
                let back = diesel::select(value.clone().into_sql::<$type>());
                assert_eq!(back.get_result::<$rust>(connection).await, Ok(value), "{route}");
            )*};
        }
        round_trip!(Bool, bool, true, false);
        round_trip!(BigInt, i64, 0, i64::MIN, i64::MAX);
        round_trip!(
            Text,
            String,
            String::new(),
            "ünï©ødé 🦀".to_owned(),
            "x".repeat(1_000_000)
        );
        round_trip!(
            Bytea,
            Vec<u8>,
            vec![],
            (0..=255).collect(),
            vec![7; 3_000_000]
        );
        round_trip!(Nullable<Integer>, Option<i32>, None, Some(7));
        round_trip!(Array<Integer>, Vec<i32>, vec![], vec![1, 2, 3]);
        round_trip!(
            Array<Nullable<Text>>,
            Vec<Option<String>>,
            vec![None, Some("a".to_owned())]
        );
        let numeric = "12345678901234567890.0123456789".parse::<bigdecimal::BigDecimal>();
        round_trip!(Numeric, bigdecimal::BigDecimal, numeric.unwrap());
        round_trip!(
            Jsonb,
            serde_json::Value,
            serde_json::json!({"a": [1, null, "b"]})
        );
        let instant = chrono::DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
        round_trip!(Timestamptz, chrono::DateTime<chrono::Utc>, instant);
    }
}

#[tokio::test]
async fn errors_keep_their_kind_and_their_sqlstate() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) VALUES ('Ada')")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let error = diesel::insert_into(users::table)
            .values(users::name.eq("Ada"))
            .execute(connection)
            .await
            .unwrap_err();
        assert_eq!(error.sqlstate(), Some("23505"), "{route}");
        let Error::DatabaseError(DatabaseErrorKind::UniqueViolation, information) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(information.table_name(), Some("users"));
        assert_eq!(information.constraint_name(), Some("users_name_key"));
        assert!(information.details().unwrap().contains("already exists"));
        for (sql, code) in [
            ("SELECT nonsense", "42703"),
            ("SELECT 1 FROM", "42601"),
            ("SELECT 1 / 0", "22012"),
            // The error comes in the middle of the rows.
            (
                "SELECT 1 / (50000 - n) AS n FROM generate_series(1, 60000) AS n",
                "22012",
            ),
        ] {
            let error = sql_query(sql).load::<Number>(connection).await.unwrap_err();
            assert_eq!(error.sqlstate(), Some(code), "{route}: {sql}");
            assert!(!error.is_transient() && !error.is_connection_lost());
        }
        let error = sql_query("SELECT '\0'")
            .execute(connection)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
        ));
        // None of these errors has cost the connection.
        let one = diesel::select(1.into_sql::<Integer>());
        assert_eq!(one.get_result(connection).await, Ok(1), "{route}");
    }
}

#[tokio::test]
async fn a_statement_that_cannot_be_sent_leaves_no_name_behind() {
    let neon = start().await;
    let connection = &mut connect(&neon.postgres_url()).await;
    let known = async |connection: &mut Connection| {
        for n in 0..3 {
            let same = diesel::select(n.into_sql::<Integer>());
            assert_eq!(same.get_result(connection).await, Ok(n));
        }
    };
    known(connection).await;
    assert_eq!(common::prepared(connection).await.len(), 1);
    connection.set_prepared_statement_cache_size(CacheSize::Disabled);
    let unsendable = sql_query("SELECT '\0'").execute(connection).await;
    unsendable.unwrap_err();
    known(connection).await;
    assert_eq!(common::prepared(connection).await, [""; 0]);
}

#[tokio::test]
async fn a_row_is_not_reported_where_its_commit_fails() {
    let neon = start().await;
    neon.sql("ALTER TABLE users ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
        .await
        .unwrap();
    neon.sql(
        "ALTER TABLE users DROP CONSTRAINT users_name_key; INSERT INTO users (name) VALUES ('Ada')",
    )
    .await
    .unwrap();
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let returned = diesel::insert_into(users::table)
            .values(users::name.eq("Ada"))
            .returning(users::id)
            .get_result::<i32>(connection)
            .await;
        assert_eq!(returned.unwrap_err().sqlstate(), Some("23505"), "{route}");
    }
}

#[tokio::test]
async fn a_lost_connection_says_so() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let mut connection = connect(&url).await;
        let sleeping = tokio::spawn(async move {
            let error = sql_query("SELECT 1 AS n FROM pg_sleep(60)")
                .load::<Number>(&mut connection)
                .await
                .unwrap_err();
            let again = sql_query("SELECT 1").execute(&mut connection).await;
            (error, again.unwrap_err())
        });
        common::until(&neon, common::RUNNING, "1").await;
        neon.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")
            .await
            .unwrap();
        let (error, again) = timeout(HANG, sleeping).await.unwrap().unwrap();
        for error in [&error, &again] {
            assert!(
                error.is_connection_lost() && error.is_transient(),
                "{route}: {error:?}"
            );
            assert!(matches!(
                error,
                Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
            ));
            assert!(error.sqlstate().is_some(), "{route}: {error:?}");
        }
        if url == neon.postgres_url() {
            assert_eq!(again.sqlstate(), Some("57P01"), "{again:?}");
        }
    }
}

#[tokio::test]
async fn rows_stream_in_and_a_stream_can_be_left_at_its_end() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let query = "SELECT n FROM generate_series(1, 200000) AS n";
        let mut rows = sql_query(query)
            .load_stream::<Number>(connection)
            .await
            .unwrap();
        let mut expected = 1..=200_000;
        while let Some(row) = rows.try_next().await.unwrap() {
            assert_eq!(Some(row.n), expected.next(), "{route}");
        }
        assert_eq!(expected.next(), None, "{route}");
        drop(rows);
        let one = diesel::select(1.into_sql::<Integer>());
        assert_eq!(one.get_result(connection).await, Ok(1), "{route}");
    }
}

#[tokio::test]
async fn shared_references_pipeline() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = connect(&url).await;
        let number = |n: i32| diesel::select(n.into_sql::<Integer>());
        let (one, (two, three)) = (number(1), (number(2), number(3)));
        let both = try_join(
            one.get_result::<i32>(&mut &connection),
            try_join(
                two.load::<i32>(&mut &connection),
                three.execute(&mut &connection),
            ),
        );
        assert_eq!(both.await, Ok((1, (vec![2], 1))), "{route}");

        // The later response is awaited first, and the earlier one kept meanwhile.
        let many = sql_query("SELECT n FROM generate_series(1, 5000) AS n");
        let mut shared = &connection;
        let rows = many.load_stream::<Number>(&mut shared).await.unwrap();
        let later = number(7).get_result::<i32>(&mut &connection).await;
        assert_eq!(later, Ok(7), "{route}");
        assert_eq!(rows.count().await, 5000, "{route}");
    }
}

#[tokio::test]
async fn copy_goes_both_ways_and_an_unwanted_one_ends() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        neon.sql("TRUNCATE users RESTART IDENTITY").await.unwrap();
        let connection = &mut connect(&url).await;
        let mut copy = connection
            .copy_in("COPY users (name) FROM STDIN")
            .await
            .unwrap();
        for n in 0..1000 {
            copy.send(format!("name {n}\n").as_bytes()).await.unwrap();
        }
        assert_eq!(copy.finish().await, Ok(1000), "{route}");

        let given_up = connection
            .copy_in("COPY users (name) FROM STDIN")
            .await
            .unwrap();
        drop(given_up);
        let mut bad = connection
            .copy_in("COPY users (id) FROM STDIN")
            .await
            .unwrap();
        bad.send(b"x\n").await.unwrap();
        assert_eq!(
            bad.finish().await.unwrap_err().sqlstate(),
            Some("22P02"),
            "{route}"
        );

        let out = connection
            .copy_out("COPY users (name) TO STDOUT")
            .await
            .unwrap();
        let out: Vec<_> = out.try_collect().await.unwrap();
        assert_eq!(
            out.concat().iter().filter(|byte| **byte == b'\n').count(),
            1000
        );

        let wrong = connection.copy_out("COPY users FROM STDIN").await.map(drop);
        assert!(wrong.is_err(), "{route}");
        let count = users::table.count().get_result(connection).await;
        assert_eq!(count, Ok(1000_i64), "{route}");
    }
}

#[tokio::test]
async fn instrumentation_sees_statements_and_no_password() {
    let neon = start().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let password = neon.password().to_owned();
    for (route, url) in routes(&neon) {
        let mut connection = connect(&url).await;
        let events = Arc::clone(&seen);
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            events.lock().unwrap().push(format!("{event:?}"));
        });
        let one = diesel::select(1.into_sql::<Integer>());
        one.get_result::<i32>(&mut connection).await.unwrap();
        let wrong = sql_query("SELECT wrong").execute(&mut connection).await;
        wrong.unwrap_err();
        let events = std::mem::take(&mut *seen.lock().unwrap());
        let count = |kind: &str| {
            events
                .iter()
                .filter(|event| event.starts_with(kind))
                .count()
        };
        assert_eq!(
            (count("StartQuery"), count("FinishQuery")),
            (2, 2),
            "{route}: {events:?}"
        );
        assert!(events.last().unwrap().contains("wrong"), "{events:?}");
        assert!(
            !events.concat().contains(&password) && !format!("{connection:?}").contains(&password)
        );
    }
}

/// Renders an event of instrumentation without the parts that differ from run to run.
fn outline(event: &InstrumentationEvent<'_>) -> String {
    use InstrumentationEvent as Event;
    match event {
        Event::StartQuery { query, .. } => format!("start {query}"),
        Event::CacheQuery { .. } => "cache".to_owned(),
        Event::FinishQuery { error, .. } if error.is_some() => "fail".to_owned(),
        Event::FinishQuery { .. } => "finish".to_owned(),
        Event::BeginTransaction { depth, .. } => format!("begin {depth}"),
        Event::CommitTransaction { depth, .. } => format!("commit {depth}"),
        Event::RollbackTransaction { depth, .. } => format!("rollback {depth}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn instrumentation_sees_transactions_and_names_that_are_given_once() {
    let neon = start().await;
    let mut connection = connect(&neon.postgres_url()).await;
    let one = async |connection: &mut Connection| {
        let one = diesel::select(1.into_sql::<Integer>());
        one.get_result::<i32>(connection).await.unwrap();
    };
    // From here on the connection knows that statements may have names.
    users::table.count().execute(&mut connection).await.unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let events = Arc::clone(&seen);
    connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        events.lock().unwrap().push(outline(&event));
    });
    let take = || std::mem::take(&mut *seen.lock().unwrap());

    one(&mut connection).await;
    one(&mut connection).await;
    let kinds = |events: Vec<String>| {
        let kinds = events.iter().map(|event| event.split(' ').next().unwrap());
        kinds.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds(take()), "start cache finish start finish");
    connection.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(take(), ["start SELECT 1", "finish"]);
    let wrong = sql_query("wrong").load::<Number>(&mut connection).await;
    wrong.unwrap_err();
    assert_eq!(kinds(take()), "start fail");

    let done = connection
        .transaction(async |connection| {
            let inner = connection
                .transaction(async |connection| {
                    one(connection).await;
                    Err::<(), _>(Error::RollbackTransaction)
                })
                .await;
            assert_eq!(inner, Err(Error::RollbackTransaction));
            Ok::<_, Error>(())
        })
        .await;
    done.unwrap();
    let events = take();
    let transactions: Vec<_> = events
        .iter()
        .filter(|event| !event.starts_with("start SELECT") && *event != "finish")
        .map(String::as_str)
        .collect();
    assert_eq!(
        transactions,
        [
            "begin 1",
            "start BEGIN",
            "begin 2",
            "start SAVEPOINT diesel_savepoint_1",
            "rollback 2",
            "start ROLLBACK TO SAVEPOINT diesel_savepoint_1",
            "commit 1",
            "start COMMIT"
        ],
        "{events:?}"
    );
}

#[tokio::test]
async fn every_constraint_has_its_kind_of_error() {
    use DatabaseErrorKind::*;

    let neon = start().await;
    neon.sql(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY, CHECK (id < 10)); \
         CREATE TABLE children (parent_id INTEGER NOT NULL REFERENCES parents ON DELETE RESTRICT); \
         INSERT INTO parents VALUES (1); INSERT INTO children VALUES (1); \
         CREATE TABLE spans (span INT4RANGE, EXCLUDE USING gist (span WITH &&)); \
         INSERT INTO spans VALUES ('[1,5)'); \
         GRANT ALL ON parents, children, spans TO PUBLIC",
    )
    .await
    .unwrap();
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        for (sql, expected) in [
            ("INSERT INTO parents VALUES (1)", &[UniqueViolation][..]),
            ("INSERT INTO parents VALUES (10)", &[CheckViolation]),
            ("INSERT INTO children VALUES (2)", &[ForeignKeyViolation]),
            ("INSERT INTO children VALUES (NULL)", &[NotNullViolation]),
            ("INSERT INTO spans VALUES ('[2,3)')", &[ExclusionViolation]),
            // Since PostgreSQL 18 a RESTRICT violation has a SQLSTATE of its own.
            (
                "DELETE FROM parents",
                &[ForeignKeyViolation, RestrictViolation],
            ),
        ] {
            for error in [
                sql_query(sql).execute(connection).await.unwrap_err(),
                connection.batch_execute(sql).await.unwrap_err(),
            ] {
                let is = |kind: &DatabaseErrorKind| {
                    let want = std::mem::discriminant(kind);
                    matches!(&error, Error::DatabaseError(kind, _) if std::mem::discriminant(kind) == want)
                };
                assert!(expected.iter().any(is), "{route}: {sql}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_form_of_query_runs() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let number = sql_query("SELECT 7 AS n").into_boxed::<diesel::pg::Pg>();
        let number: Number = number.get_result(connection).await.unwrap();
        assert_eq!(number.n, 7, "{route}");
        let literal = diesel::dsl::sql::<Integer>("SELECT 6");
        assert_eq!(literal.get_result(connection).await, Ok(6), "{route}");
        let bound = diesel::dsl::sql::<BigInt>("SELECT count(id) FROM users WHERE name = ");
        let bound = bound.bind::<Text, _>("Bob");
        assert_eq!(bound.get_result(connection).await, Ok(0_i64), "{route}");
        let others = diesel::alias!(users as others);
        let others: Vec<(i32, String)> = others.load(connection).await.unwrap();
        assert_eq!(others, [], "{route}");
        let boxed = users::table.filter(users::id.gt(0)).into_boxed();
        let boxed: Vec<(i32, String)> = boxed.load(connection).await.unwrap();
        assert_eq!(boxed, [], "{route}");
        let exists = diesel::select(diesel::dsl::exists(users::table.filter(users::id.gt(0))));
        assert_eq!(exists.get_result(connection).await, Ok(false), "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_migration_harness_and_the_blocking_wrapper_work() {
    use diesel_async::AsyncMigrationHarness;
    use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
    use diesel_migrations::MigrationHarness;

    let neon = start().await;
    let harness = &mut AsyncMigrationHarness::new(connect(&neon.url()).await);
    let applied = MigrationHarness::<diesel::pg::Pg>::applied_migrations(harness);
    assert!(applied.unwrap().is_empty());

    let url = neon.url();
    let blocking = std::thread::spawn(move || {
        use diesel::connection::SimpleConnection;
        type Blocking = AsyncConnectionWrapper<Connection>;
        let connection = &mut <Blocking as diesel::Connection>::establish(&url).unwrap();
        SimpleConnection::batch_execute(connection, "SELECT 1").unwrap();
        diesel::Connection::transaction(connection, |connection| {
            let one = diesel::select(1.into_sql::<Integer>());
            diesel::RunQueryDsl::get_result::<i32>(one, connection)
        })
        .unwrap()
    });
    assert_eq!(blocking.join().unwrap(), 1);
}

#[tokio::test]
async fn notifications_arrive_on_the_direct_endpoint_and_are_refused_on_the_pooled() {
    let neon = start().await;
    let mut listener = connect(&neon.url()).await;
    sql_query("LISTEN books")
        .execute(&mut listener)
        .await
        .unwrap();
    let mut other = connect(&neon.postgres_url()).await;
    let notify = "NOTIFY books, 'first'; NOTIFY books, 'second'";
    other.batch_execute(notify).await.unwrap();
    let mut notifications = Box::pin(listener.notifications_stream().unwrap());
    for payload in ["first", "second"] {
        let next = timeout(HANG, notifications.next()).await.unwrap();
        let next = next.unwrap().unwrap();
        assert_eq!((&*next.channel, &*next.payload), ("books", payload));
    }
    drop(notifications);

    let mut pooled = connect(&neon.pooled_url()).await;
    assert!(pooled.notifications_stream().is_err());
    for refused in [
        sql_query("LISTEN books")
            .execute(&mut pooled)
            .await
            .map(drop),
        pooled.batch_execute(" listen \"books\"").await,
    ] {
        assert!(refused.unwrap_err().to_string().contains("direct"));
    }
}

#[tokio::test]
async fn a_cancel_token_stops_a_statement() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let mut connection = connect(&url).await;
        let token = connection.cancel_token();
        let sleeping = tokio::spawn(async move {
            let slept = sql_query("SELECT 1 AS n FROM pg_sleep(60)")
                .load::<Number>(&mut connection)
                .await;
            let next = diesel::select(1.into_sql::<Integer>());
            (slept, next.get_result::<i32>(&mut connection).await)
        });
        common::until(&neon, common::RUNNING, "1").await;
        token.cancel().await.unwrap();
        let (slept, next) = timeout(HANG, sleeping).await.unwrap().unwrap();
        assert_eq!(slept.unwrap_err().sqlstate(), Some("57014"), "{route}");
        assert_eq!(next, Ok(1), "{route}");
    }
}

#[tokio::test]
async fn async_pg_connection_works_direct_and_is_refused_where_it_is_not_safe() {
    use diesel_async::AsyncPgConnection;
    use diesel_neon::{BuildError, NamedStatements, PoolBuilder};

    let neon = start().await;
    for url in [neon.url(), neon.postgres_url()] {
        let pool = common::pool_of::<AsyncPgConnection>(&url, |policy| policy);
        for _ in 0..3 {
            let mut connection = pool.get().await.unwrap();
            let one = diesel::select(1.into_sql::<Integer>());
            assert_eq!(one.get_result(&mut connection).await, Ok(1));
        }
        assert_eq!(pool.status().size, 1);
    }
    let pooled = || PoolBuilder::<AsyncPgConnection>::new(neon.pooled_url());
    let refused = pooled().build().unwrap_err();
    assert!(matches!(refused, BuildError::UnsafeBehindPooler { .. }));
    let message = refused.to_string();
    assert!(
        message.contains("diesel_neon::Connection") && message.contains("direct"),
        "{message}"
    );
    let tracked = pooled().named_statements(NamedStatements::Always);
    assert!(tracked.build().is_ok());
}
