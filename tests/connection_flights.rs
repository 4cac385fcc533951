//! The number of round trips of each operation, and the statements that have names.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use common::{HANG, TRACKED, connect, counted, pool, prepared, routes, start, users};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager as _};
use diesel_neon::{Connection, DatabaseErrorExt};
use futures_util::poll;
use tokio::time::timeout;

type Manager = <Connection as AsyncConnection>::TransactionManager;

#[tokio::test]
async fn everything_takes_one_flight_on_both_endpoints() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let before = neon.counters();
        let connection = &mut connect(&url).await;
        assert_eq!(counted(&neon, &url, before).flights, 0);

        macro_rules! flights {
            ($what:expr) => {{
                let before = neon.counters();
                $what.await.unwrap();
                counted(&neon, &url, before).flights
            }};
        }
        let id: i32 = diesel::insert_into(users::table)
            .values(users::name.eq(&url[..]))
            .returning(users::id)
            .get_result(connection)
            .await
            .unwrap();
        let look_up = || users::table.find(id);
        assert_eq!(flights!(look_up().first::<(i32, String)>(connection)), 1);
        for _ in 0..3 {
            assert_eq!(flights!(look_up().first::<(i32, String)>(connection)), 1);
        }
        for name in ["a", "b"] {
            let update = diesel::update(users::table.find(id)).set(users::name.eq(name));
            assert_eq!(flights!(update.execute(connection)), 1);
        }
        let batch = |n: i32| (0..n).map(|n| users::name.eq(format!("{id} {n}")));
        let insert = diesel::insert_into(users::table).values(batch(3).collect::<Vec<_>>());
        assert_eq!(flights!(insert.execute(connection)), 1);
        assert_eq!(flights!(sql_query("SELECT 1").execute(connection)), 1);
        assert_eq!(flights!(connection.batch_execute("SELECT 1; SELECT 2")), 1);

        assert_eq!(
            flights!(connection.transaction(async |connection| {
                diesel::update(users::table.find(id))
                    .set(users::name.eq("c"))
                    .execute(connection)
                    .await
            })),
            2
        );
        assert_eq!(
            flights!(connection.transaction(async |_| Ok::<_, diesel::result::Error>(()))),
            0
        );
        neon.sql("TRUNCATE users").await.unwrap();
    }
}

/// Behind the TCP handshake: TLS, the startup, SCRAM's two messages, and the statement; SSLRequest is one more, and so
/// is the question that `target_session_attrs` asks.
#[tokio::test]
async fn a_new_connection_and_its_first_statement_take_five_flights_with_direct_tls() {
    let neon = start().await;
    // A goodbye would be a flight, too.
    let mut open = Vec::new();
    for url in [neon.url(), neon.pooled_url()] {
        for (parameters, handshake, session) in [
            ("sslnegotiation=direct", 4, 1),
            ("sslnegotiation=postgres", 5, 1),
            (
                "sslnegotiation=direct&target_session_attrs=read-write",
                4,
                2,
            ),
        ] {
            let url = format!("{url}&{parameters}");
            let flights = |before| {
                let counted = counted(&neon, &url, before);
                (counted.handshake_flights, counted.flights)
            };
            let before = neon.counters();
            let pool = pool(&url, |policy| policy);
            let mut connection = pool.get_owned().await.unwrap();
            let sum = diesel::select(1.into_sql::<Integer>() + 1);
            assert_eq!(sum.get_result(&mut connection).await, Ok(2));
            assert_eq!(flights(before), (handshake, session), "{url}");

            let before = neon.counters();
            let single = connect(&url).await;
            assert_eq!(flights(before), (handshake, session - 1), "{url}");
            open.push((connection, single));
        }
    }
}

#[tokio::test]
async fn connecting_sets_the_time_zone_only_where_it_must() {
    let neon = start().await;
    for zone in ["UTC", "GMT", "Etc/UTC"] {
        neon.sql(&format!("ALTER ROLE neondb_owner SET timezone = '{zone}'"))
            .await
            .unwrap();
        let before = neon.counters();
        let connection = connect(&neon.url()).await;
        assert_eq!(counted(&neon, &neon.url(), before).flights, 0, "{zone}");
        drop(connection);
        // Terminate is a flight too.
        while counted(&neon, &neon.url(), before).terminates == 0 {
            tokio::task::yield_now().await;
        }
    }
    neon.sql("ALTER ROLE neondb_owner SET timezone = 'Asia/Kathmandu'")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        let before = neon.counters();
        let connection = &mut connect(&url).await;
        if url == neon.url() {
            assert_eq!(counted(&neon, &url, before).flights, 1);
        }
        let zone = diesel::select(diesel::dsl::sql::<Text>("current_setting('TimeZone')"));
        let zone: String = zone.get_result(connection).await.unwrap();
        assert_eq!(zone, "UTC", "{route}");
        let encoding = connection.parameter("client_encoding");
        assert_eq!(encoding.as_deref(), Some("UTF8"), "{route}");
    }
}

#[tokio::test]
async fn statement_cache_names_statements_that_come_again_on_the_direct_endpoint() {
    let neon = start().await;
    for url in [neon.url(), neon.postgres_url()] {
        let pool = pool(&url, |policy| policy.max_size(1).statement_cache(2));
        let mut connection = pool.get().await.unwrap();
        // The first statement may only detect whether names are safe.
        for n in 0..3 {
            let sum = diesel::select(n.into_sql::<Integer>() + 1);
            assert_eq!(sum.get_result(&mut connection).await, Ok(n + 1));
        }
        assert_eq!(prepared(&mut connection).await.len(), 1);
        for _ in 0..2 {
            users::table
                .count()
                .get_result::<i64>(&mut connection)
                .await
                .unwrap();
            users::table.find(1).execute(&mut connection).await.unwrap();
        }
        // The cache is bounded: the first statement has left it, and a batch never has a name.
        let batch = vec![users::name.eq("a"), users::name.eq("b")];
        let batch = diesel::insert_into(users::table).values(batch);
        batch.execute(&mut connection).await.unwrap();
        let names = prepared(&mut connection).await;
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.iter().all(|statement| statement.contains("users")));
        neon.sql("TRUNCATE users").await.unwrap();
    }
}

#[derive(AsChangeset)]
#[diesel(table_name = users)]
struct Changes<'a> {
    name: Option<&'a str>,
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Returns a connection that knows whether statements may have names.
async fn informed(url: &str) -> Connection {
    let mut connection = connect(url).await;
    let sum = diesel::select(1.into_sql::<Integer>() + 1);
    assert_eq!(sum.get_result(&mut connection).await, Ok(2));
    connection
}

#[tokio::test]
async fn statements_that_diesel_does_not_cache_have_names_when_they_come_again() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut informed(&url).await;
        let named = url == neon.url() || TRACKED;
        // Four times, with other values.
        macro_rules! each {
            ($n:ident => $statement:expr) => {
                for $n in 1..5_i32 {
                    let before = neon.counters();
                    $statement;
                    let counted = counted(&neon, &url, before);
                    assert_eq!(counted.flights, 1, "{url}: {}", stringify!($statement));
                    let is_named = u64::from(named && $n == 2);
                    assert_eq!(
                        counted.named_parses,
                        is_named,
                        "{url}: {}, {}",
                        stringify!($statement),
                        $n
                    );
                }
            };
        }
        let row = |id: i32| (users::id.eq(id), users::name.eq(format!("{id}")));
        each!(n => {
            let batch = vec![row(n * 10), row(n * 10 + 1)];
            let insert = diesel::insert_into(users::table).values(batch);
            assert_eq!(insert.execute(connection).await, Ok(2));
        });
        each!(n => {
            let name = format!("changed {n}");
            let changes = Changes { name: Some(&name) };
            let update = diesel::update(users::table.find(n * 10)).set(changes);
            assert_eq!(update.execute(connection).await, Ok(1));
        });
        each!(n => {
            let query = sql_query("SELECT name FROM users WHERE id = $1").bind::<Integer, _>(n * 10);
            let name = format!("changed {n}");
            assert_eq!(query.load::<Name>(connection).await, Ok(vec![Name { name }]));
        });
        each!(n => {
            let gone = sql_query("WITH gone AS (DELETE FROM users WHERE id = $1 RETURNING *) SELECT name FROM gone");
            let gone = gone.bind::<Integer, _>(n * 10);
            assert_eq!(gone.load::<Name>(connection).await.unwrap().len(), 1);
        });
        // The same text with another type is another statement.
        each!(n => {
            let query = sql_query("SELECT name FROM users WHERE id = $1").bind::<BigInt, _>(i64::from(n));
            assert_eq!(query.load::<Name>(connection).await, Ok(vec![]));
        });
        neon.sql("TRUNCATE users").await.unwrap();
    }
}

#[tokio::test]
async fn statements_that_come_once_or_are_no_use_to_plan_have_no_name() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut informed(&url).await;
        let before = neon.counters();
        for n in 1..9 {
            // No two batches have the same length.
            let row = |id| (users::id.eq(id), users::name.eq(format!("{id}")));
            let batch: Vec<_> = (n * 10..n * 11).map(row).collect();
            let insert = diesel::insert_into(users::table).values(batch);
            insert.execute(connection).await.unwrap();
            sql_query(format!("SELECT {n}"))
                .execute(connection)
                .await
                .unwrap();
        }
        let long = format!("SELECT '{}'", "a".repeat(10_000));
        for sql in [
            "SET LOCAL application_name = 'a'",
            "DEALLOCATE ALL",
            "EXPLAIN SELECT 1",
            &long,
        ] {
            for _ in 0..3 {
                sql_query(sql).execute(connection).await.unwrap();
            }
        }
        assert_eq!(counted(&neon, &url, before).named_parses, 0, "{url}");
        neon.sql("TRUNCATE users").await.unwrap();
    }
}

#[tokio::test]
async fn a_text_that_leaves_the_cache_is_closed_in_the_flight_of_the_next() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, |policy| policy.max_size(1).statement_cache(2));
        let mut connection = pool.get().await.unwrap();
        let texts = (0..5).map(|n| format!("SELECT name FROM users WHERE id = {n}"));
        let texts: Vec<_> = texts.collect();
        let before = neon.counters();
        for _ in 0..6 {
            for sql in &texts {
                sql_query(sql).execute(&mut connection).await.unwrap();
            }
        }
        let counted = counted(&neon, &url, before);
        // The probe, if there was one, is a flight of its own in front of the first statement's.
        assert!(counted.flights <= 6 * 5 + 1, "{url}: {}", counted.flights);
        let kept = prepared(&mut connection).await;
        match url == neon.url() {
            true => assert_eq!(kept.len(), 2, "{kept:?}"),
            // The servers of a pooler keep what it has prepared there.
            false => assert!(TRACKED || kept.is_empty(), "{kept:?}"),
        }
    }
}

#[tokio::test]
async fn sql_with_a_name_notices_a_changed_table() {
    let neon = start().await;
    neon.sql("INSERT INTO users VALUES (1, 'a')").await.unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut informed(&url).await;
        let all = async |connection: &mut Connection| {
            let all = sql_query("SELECT * FROM users");
            all.load::<Name>(connection).await
        };
        let names = || {
            Ok(vec![Name {
                name: "a".to_owned(),
            }])
        };
        for change in [
            "ADD extra INTEGER DEFAULT 7",
            "DROP extra",
            "ALTER name TYPE VARCHAR(99)",
            "ALTER name TYPE TEXT",
        ] {
            for _ in 0..3 {
                assert_eq!(all(connection).await, names(), "{url}, before {change}");
            }
            neon.sql(&format!("ALTER TABLE users {change}"))
                .await
                .unwrap();
            assert_eq!(all(connection).await, names(), "{url}, after {change}");
        }
        // The first statement of a transaction runs again, too.
        for _ in 0..3 {
            all(connection).await.unwrap();
        }
        neon.sql("ALTER TABLE users ADD extra INTEGER")
            .await
            .unwrap();
        let in_transaction = connection.transaction(async |connection| all(connection).await);
        assert_eq!(in_transaction.await, names(), "{url}");
        neon.sql("ALTER TABLE users DROP extra").await.unwrap();
    }
}

/// Connects, and makes a new table.
async fn with_drafts(url: &str) -> Connection {
    let mut connection = informed(url).await;
    let create = "DROP TABLE IF EXISTS drafts; CREATE TABLE drafts (name TEXT)";
    connection.batch_execute(create).await.unwrap();
    connection
}

async fn drafts(connection: &mut Connection) -> QueryResult<()> {
    let drafts = sql_query("SELECT * FROM drafts").load::<Name>(connection);
    drafts.await.map(drop)
}

#[tokio::test]
async fn a_transaction_that_changes_a_table_goes_on() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut informed(&url).await;
        let changed = connection.transaction(async |connection| {
            let create = "CREATE TEMPORARY TABLE drafts (name TEXT) ON COMMIT DROP";
            connection.batch_execute(create).await?;
            for change in ["ADD a INTEGER", "DROP a"] {
                for _ in 0..3 {
                    drafts(connection).await?;
                }
                let change = sql_query(format!("ALTER TABLE drafts {change}"));
                change.execute(connection).await?;
                drafts(connection).await?;
            }
            Ok::<_, diesel::result::Error>(())
        });
        assert_eq!(changed.await, Ok(()), "{url}");
    }
}

#[tokio::test]
async fn a_change_of_a_table_that_is_rolled_back_is_noticed() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut with_drafts(&url).await;
        let roll_back = async |connection: &mut Connection| {
            let rolled_back = connection.transaction(async |connection| {
                let alter = "ALTER TABLE drafts ALTER name TYPE VARCHAR(99)";
                connection.batch_execute(alter).await?;
                for _ in 0..3 {
                    drafts(connection).await?;
                }
                Err::<(), _>(Error::RollbackTransaction)
            });
            assert_eq!(rolled_back.await, Err(Error::RollbackTransaction));
        };
        roll_back(connection).await;
        for is_inside in [false, true] {
            let done = connection.transaction(async |connection| {
                sql_query("SELECT 1").execute(connection).await?;
                if is_inside {
                    roll_back(connection).await;
                }
                drafts(connection).await
            });
            assert_eq!(done.await, Ok(()), "{url}, {is_inside}");
        }
    }
}

#[tokio::test]
async fn a_change_of_a_table_is_noticed_that_a_failed_commit_or_a_dropped_rollback_undoes() {
    let neon = start().await;
    neon.sql(
        "ALTER TABLE users ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED, DROP CONSTRAINT users_name_key",
    )
    .await
    .unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut with_drafts(&url).await;
        for commits in [true, false] {
            Manager::begin_transaction(connection).await.unwrap();
            let alter = "ALTER TABLE drafts ALTER name TYPE VARCHAR(99)";
            connection.batch_execute(alter).await.unwrap();
            for _ in 0..3 {
                drafts(connection).await.unwrap();
            }
            if commits {
                let twice = users::name.eq("Ada");
                let twice = diesel::insert_into(users::table).values(vec![twice, twice]);
                twice.execute(connection).await.unwrap();
                let done = Manager::commit_transaction(connection).await;
                assert_eq!(done.unwrap_err().sqlstate(), Some("23505"));
            } else {
                let mut dropped = Box::pin(Manager::rollback_transaction(connection));
                assert!(poll!(dropped.as_mut()).is_pending());
            }
            let done = connection.transaction(async |connection| {
                sql_query("SELECT 1").execute(connection).await?;
                drafts(connection).await
            });
            assert_eq!(done.await, Ok(()), "{url}, {commits}");
        }
    }
}

#[tokio::test]
async fn transactions_behind_a_change_of_a_table_go_on() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut with_drafts(&url).await;
        for _ in 0..3 {
            drafts(connection).await.unwrap();
        }
        let alter = "ALTER TABLE drafts ALTER name TYPE VARCHAR(99)";
        connection.batch_execute(alter).await.unwrap();
        for nth in 1..4 {
            let done = connection.transaction(async |connection| {
                for _ in 0..3 {
                    sql_query("SELECT 1").execute(connection).await?;
                    drafts(connection).await?;
                }
                Ok::<_, Error>(())
            });
            assert_eq!(done.await, Ok(()), "{url}, transaction {nth}");
        }
    }
}

#[tokio::test]
async fn statements_that_are_sent_with_a_change_of_a_table_see_it() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut with_drafts(&url).await;
        for _ in 0..3 {
            drafts(connection).await.unwrap();
        }
        for waits in [false, true] {
            let done = connection.transaction(async |connection| {
                if !waits {
                    sql_query("SELECT 1").execute(connection).await?;
                }
                let alter = format!("ALTER TABLE drafts ADD {}", ["a", "b"][usize::from(waits)]);
                let alter = sql_query(alter + " INTEGER");
                let (one, two, three) = (&*connection, &*connection, &*connection);
                // The others wait for the BEGIN that rides with the first.
                let (first, changed, seen) = tokio::join!(
                    sql_query("SELECT 1").execute(&mut { one }),
                    alter.execute(&mut { two }),
                    sql_query("SELECT * FROM drafts").load::<Name>(&mut { three }),
                );
                first.and(changed).and(seen).map(drop)
            });
            assert_eq!(done.await, Ok(()), "{url}, {waits}");
        }
    }
}

/// A change of a table that Diesel caches as it does a query.
#[derive(QueryId)]
struct Widen;

impl QueryFragment<Pg> for Widen {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("ALTER TABLE drafts ADD a INTEGER");
        Ok(())
    }
}

impl<C> diesel::RunQueryDsl<C> for Widen {}

#[tokio::test]
async fn statements_that_are_planned_before_a_change_and_sent_behind_it_see_it() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        for is_cached in [false, true] {
            let connection = &mut with_drafts(&url).await;
            for _ in 0..3 {
                drafts(connection).await.unwrap();
            }
            let done = connection.transaction(async |connection| {
                let shared = &*connection;
                let (mut one, mut two, mut three) = (shared, shared, shared);
                let mut first = Box::pin(one.batch_execute("SELECT 1"));
                assert!(poll!(first.as_mut()).is_pending());
                // Both wait for the BEGIN that rides with the first.
                let mut seen = Box::pin(sql_query("SELECT * FROM drafts").load::<Name>(&mut two));
                assert!(poll!(seen.as_mut()).is_pending());
                let mut changed = match is_cached {
                    true => Widen.execute(&mut three),
                    false => sql_query("ALTER TABLE drafts ADD a INTEGER").execute(&mut three),
                };
                assert!(poll!(changed.as_mut()).is_pending());
                first.await?;
                assert!(poll!(changed.as_mut()).is_pending());
                seen.await?;
                changed.await.map(drop)
            });
            assert_eq!(done.await, Ok(()), "{url}, {is_cached}");
        }
    }
}

#[tokio::test]
async fn names_are_closed_though_the_savepoint_behind_fails() {
    let neon = start().await;
    let url = neon.url();
    let pool = pool(&url, |policy| policy.max_size(1).statement_cache(2));
    let connection = &mut *pool.get().await.unwrap();
    for round in 0..10 {
        let failed = connection.transaction(async |connection| {
            for n in 0..3 {
                for _ in 0..2 {
                    let query = sql_query(format!("SELECT {n}, {round}"));
                    query.execute(connection).await?;
                }
            }
            let mut dropped = Box::pin(connection.batch_execute("SELECT 1 / 0"));
            assert!(poll!(dropped.as_mut()).is_pending());
            drop(dropped);
            // The names that were evicted are closed with it.
            connection
                .transaction(async |connection| sql_query("SELECT 1").execute(connection).await)
                .await
        });
        assert_eq!(failed.await.unwrap_err().sqlstate(), Some("25P02"));
    }
    let count = sql_query("SELECT count(*)::text AS name FROM pg_prepared_statements");
    let count = count.get_result::<Name>(connection).await.unwrap().name;
    assert!(count.parse::<u32>().unwrap() <= 4, "{count}");
}

#[tokio::test]
async fn a_change_of_a_table_that_is_kept_costs_no_name_later() {
    let neon = start().await;
    let url = neon.url();
    let connection = &mut informed(&url).await;
    let create = "CREATE TABLE drafts (name TEXT)";
    let begin = format!("BEGIN; {}; COMMIT", create.replace("drafts", "others"));
    for change in [create, &begin, "ALTER TABLE drafts ADD a INTEGER"] {
        connection.batch_execute(change).await.unwrap();
        for _ in 0..2 {
            drafts(connection).await.ok();
        }
        let before = neon.counters();
        for _ in 0..3 {
            let rolled_back = connection.transaction(async |connection| {
                drafts(connection).await?;
                Err::<(), _>(Error::RollbackTransaction)
            });
            rolled_back.await.unwrap_err();
        }
        let prepared = counted(&neon, &url, before).named_parses;
        assert_eq!(prepared, 0, "{change}");
    }
}

#[tokio::test]
async fn a_transaction_that_has_changed_a_table_gives_no_names() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let connection = &mut informed(&url).await;
        let done = connection.transaction(async |connection| {
            let create = "CREATE TEMPORARY TABLE drafts (name TEXT) ON COMMIT DROP";
            connection.batch_execute(create).await?;
            let before = neon.counters();
            for _ in 0..3 {
                drafts(connection).await?;
            }
            assert_eq!(counted(&neon, &url, before).named_parses, 0);
            Ok::<_, Error>(())
        });
        assert_eq!(done.await, Ok(()), "{url}");
    }
}

#[tokio::test]
async fn a_stale_statement_is_tried_again_where_nothing_has_run() {
    let neon = start().await;
    let connection = &mut connect(&neon.url()).await;
    let names = || {
        users::table
            .select((users::id, users::name))
            .order(users::id)
    };
    for _ in 0..2 {
        names().load::<(i32, String)>(connection).await.unwrap();
    }
    assert_eq!(prepared(connection).await.len(), 1);

    // The columns of the plan's rows have changed.
    neon.sql("ALTER TABLE users ALTER name TYPE VARCHAR(99)")
        .await
        .unwrap();
    names().load::<(i32, String)>(connection).await.unwrap();
    names().load::<(i32, String)>(connection).await.unwrap();
    // The first statement of a transaction is run again too.
    neon.sql("ALTER TABLE users ALTER name TYPE TEXT")
        .await
        .unwrap();
    connection
        .transaction(async |connection| {
            names().load::<(i32, String)>(connection).await?;
            let insert = diesel::insert_into(users::table).values(users::name.eq("Ada"));
            insert.execute(connection).await
        })
        .await
        .unwrap();
    assert_eq!(
        names()
            .load::<(i32, String)>(connection)
            .await
            .unwrap()
            .len(),
        1
    );

    // The server has forgotten the names without a word.
    let forget = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
    names().load::<(i32, String)>(connection).await.unwrap();
    connection.batch_execute(forget).await.unwrap();
    assert_eq!(
        names()
            .load::<(i32, String)>(connection)
            .await
            .unwrap()
            .len(),
        1
    );

    // Earlier statements of the transaction cannot be run again.
    names().load::<(i32, String)>(connection).await.unwrap();
    connection.batch_execute(forget).await.unwrap();
    let error = connection
        .transaction(async |connection| {
            sql_query("SELECT 1").execute(connection).await?;
            names().load::<(i32, String)>(connection).await
        })
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("26000"));
    assert_eq!(
        names()
            .load::<(i32, String)>(connection)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_stale_statement_is_not_tried_again_where_another_was_sent_behind_it() {
    let neon = start().await;
    let connection = &mut connect(&neon.url()).await;
    let names = || users::table.select(users::name);
    for _ in 0..2 {
        names().load::<String>(connection).await.unwrap();
    }
    neon.sql("ALTER TABLE users ALTER name TYPE VARCHAR(99)")
        .await
        .unwrap();
    let mut told = None;
    let done = connection
        .transaction(async |connection| {
            let shared = &*connection;
            let (mut one, mut other) = (shared, shared);
            let mut stale = Box::pin(names().load::<String>(&mut one));
            assert!(poll!(stale.as_mut()).is_pending());
            let insert = diesel::insert_into(users::table).values(users::name.eq("Ada"));
            let inserted = insert.execute(&mut other).await;
            told = Some((stale.await.is_ok(), inserted.is_ok()));
            // It goes on without a look at the errors.
            Ok::<_, diesel::result::Error>(())
        })
        .await;
    let found = names().load::<String>(connection).await.unwrap();
    let is_whole = told == Some((true, true)) && found.len() == 1;
    assert!(done.is_err() && found.is_empty() || is_whole, "{told:?}");
}

#[tokio::test]
async fn a_stale_statement_is_not_tried_again_in_another_transaction() {
    let neon = start().await;
    let stale = || {
        let insert = diesel::insert_into(users::table).values(users::name.eq("Ada"));
        insert.returning(users::name)
    };
    for (before, behind) in [
        ("BEGIN", "COMMIT"),
        ("BEGIN", "ROLLBACK"),
        ("SELECT 1", "BEGIN"),
        ("SELECT 1", "SELECT 1; START TRANSACTION"),
    ] {
        let connection = &mut connect(&neon.url()).await;
        for _ in 0..2 {
            stale().get_result::<String>(connection).await.unwrap();
            neon.sql("TRUNCATE users").await.unwrap();
        }
        neon.sql(
            "ALTER TABLE users ALTER name TYPE TEXT; ALTER TABLE users ALTER name TYPE VARCHAR(99)",
        )
        .await
        .unwrap();
        connection.batch_execute(before).await.unwrap();
        let shared = &*connection;
        let (mut one, mut other) = (shared, shared);
        let mut inserted = Box::pin(stale().get_result::<String>(&mut one));
        assert!(poll!(inserted.as_mut()).is_pending());
        let done = other.batch_execute(behind).await;
        let inserted = inserted.await;
        let what = format!("{before}, {behind}");
        assert!(done.is_ok() && inserted.is_err(), "{what}: {inserted:?}");
        connection.batch_execute("ROLLBACK").await.unwrap();
        let names = users::table.select(users::name);
        let found = names.load::<String>(connection).await.unwrap();
        assert!(found.is_empty(), "{what}: {found:?}");
        neon.sql("ALTER TABLE users ALTER name TYPE TEXT")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_statement_that_waits_to_be_sent_keeps_its_name() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1).statement_cache(1));
    let connection = &mut *pool.get().await.unwrap();
    let ids = || users::table.select(users::id);
    for _ in 0..2 {
        ids().load::<i32>(connection).await.unwrap();
    }
    let done = connection
        .transaction(async |connection| {
            let shared = &*connection;
            let (mut one, mut two, mut three) = (shared, shared, shared);
            let mut first = Box::pin(one.batch_execute("SELECT 1"));
            assert!(poll!(first.as_mut()).is_pending());
            let mut named = Box::pin(ids().load::<i32>(&mut two));
            assert!(poll!(named.as_mut()).is_pending());
            // There is room for one name.
            let newer = users::table.select(users::name).load::<String>(&mut three);
            let mut newer = Box::pin(newer);
            assert!(poll!(newer.as_mut()).is_pending());
            first.await?;
            newer.await?;
            named.await
        })
        .await;
    assert_eq!(done, Ok(vec![]));
    assert_eq!(prepared(connection).await.len(), 1);
}

#[tokio::test]
async fn many_binds_are_sent_or_refused_and_never_hang() {
    let neon = start().await;
    let connection = &mut connect(&neon.url()).await;
    let query = |n: i64| {
        let sum = (0..n).fold("SELECT 0::bigint".to_owned(), |mut sql, i| {
            sql.push_str(&format!(
                "{}${}",
                if i == 0 { " WHERE 0 IN (" } else { "," },
                i + 1
            ));
            sql
        });
        let mut query = sql_query(sum + ")").into_boxed::<diesel::pg::Pg>();
        for i in 0..n {
            query = query.bind::<BigInt, _>(i);
        }
        query
    };
    assert_eq!(
        timeout(HANG, query(65_535).execute(connection))
            .await
            .unwrap(),
        Ok(1)
    );
    let refused = timeout(HANG, query(65_536).execute(connection))
        .await
        .unwrap();
    assert!(refused.unwrap_err().to_string().contains("65535"));
    assert_eq!(query(3).execute(connection).await, Ok(1));
}
