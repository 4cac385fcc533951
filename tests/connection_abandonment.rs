//! A statement whose caller has gone leaves no query, no lock, no transaction, and no connection that another
//! caller is handed.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    HANG, IN_TRANSACTION, RUNNING, TRACKED, backend, connect, counted, pool, pool_of, routes,
    start, undisturbed, until, users,
};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    Connection, DatabaseErrorExt, DatabaseUrl, Establish, NamedStatements, Pool, PooledConnection,
};
use futures_util::future::{Either, join_all, poll_immediate, select};
use futures_util::{FutureExt, StreamExt};
use neon_sim::NeonSim;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    n: i32,
}

trait Second {
    fn is_right(&self) -> bool;
}

impl<A, B> Second for Either<A, B> {
    fn is_right(&self) -> bool {
        matches!(self, Either::Right(_))
    }
}

async fn get(pool: &Pool) -> PooledConnection<'_> {
    timeout(HANG, pool.get()).await.expect("no hang").unwrap()
}

#[tokio::test]
async fn a_dropped_statement_is_cancelled_and_its_connection_is_not_handed_out_again() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) VALUES ('Ada')")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        for round in 0..3 {
            let mut connection = get(&pool).await;
            let lock = "UPDATE users SET name = 'locked' || pg_sleep(60)::text";
            let statement = connection.batch_execute(lock);
            let running = until(&neon, RUNNING, "1");
            assert!(
                select(Box::pin(statement), Box::pin(running))
                    .await
                    .is_right()
            );
            drop(connection);
            until(&neon, RUNNING, "0").await;
            let mut connection = get(&pool).await;
            // No session holds the row.
            let update = diesel::update(users::table).set(users::name.eq("Ada"));
            let updated = timeout(HANG, update.execute(&mut connection)).await;
            assert_eq!(updated.unwrap(), Ok(1), "{route}, {round}");
        }
        assert_eq!(pool.status().size, 1, "{route}");
    }
}

#[tokio::test]
async fn a_dropped_statement_is_cancelled_even_if_the_connection_is_kept() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        let mut connection = get(&pool).await;
        let statement = sql_query("SELECT pg_sleep(60)")
            .execute(&mut connection)
            .map(drop);
        assert!(timeout(Duration::from_millis(50), statement).await.is_err());
        until(&neon, RUNNING, "0").await;
        let next = sql_query("SELECT 1")
            .execute(&mut connection)
            .await
            .unwrap_err();
        assert!(next.is_connection_lost(), "{route}: {next:?}");
        drop(connection);
        let mut connection = get(&pool).await;
        assert_eq!(
            sql_query("SELECT 1").execute(&mut connection).await,
            Ok(1),
            "{route}"
        );
    }
}

/// Returns each route to a server, with each way in which TLS can begin.
async fn ways(neon: &NeonSim) -> Vec<String> {
    let mut ways = vec![neon.postgres_url(), neon.url()];
    ways.push(format!("{}&sslnegotiation=direct", neon.url()));
    if cfg!(unix) {
        ways.push(socket(neon, &neon.postgres_url()).await);
    }
    ways
}

/// Returns the Unix socket of the server at `url`.
async fn socket(neon: &NeonSim, url: &str) -> String {
    let rows = neon.sql("SHOW unix_socket_directories").await.unwrap();
    let folder = rows[0][0].as_deref().unwrap().replace('/', "%2F");
    let port = DatabaseUrl::parse(url).unwrap().hosts()[0].port;
    let password = neon.password();
    format!("postgresql://neondb_owner:{password}@{folder}:{port}/neondb")
}

/// Drops a statement together with its connection, and waits for its end.
async fn is_cancelled<C: Establish>(neon: &NeonSim, url: &str) {
    let before = neon.counters();
    let names = NamedStatements::Always;
    let pool = pool_of::<C>(url, |policy| policy.max_size(1).named_statements(names));
    let mut connection = timeout(HANG, pool.get()).await.expect("no hang").unwrap();
    let lock = "UPDATE users SET name = 'locked' || pg_sleep(60)::text";
    let statement = connection.batch_execute(lock);
    let running = until(neon, RUNNING, "1");
    let ended = select(Box::pin(statement), Box::pin(running)).await;
    assert!(ended.is_right(), "{url}");
    drop(ended);
    drop(connection);
    until(neon, RUNNING, "0").await;
    let mut connection = timeout(HANG, pool.get()).await.expect("no hang").unwrap();
    let update = connection.batch_execute("UPDATE users SET name = 'Ada'");
    timeout(HANG, update).await.expect("no lock").unwrap();
    // The proxy itself cancels the statement of a client that has gone.
    let asked = counted(neon, url, before).cancels > 0;
    assert_eq!(asked, url.contains("neon.localhost"), "{url}");
}

#[tokio::test]
async fn a_dropped_statement_is_cancelled_over_tls_of_either_negotiation_and_over_unix_sockets() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) VALUES ('Ada')")
        .await
        .unwrap();
    let pooled = format!("{}&sslnegotiation=direct", neon.pooled_url());
    is_cancelled::<Connection>(&neon, &pooled).await;
    if cfg!(unix) {
        let pgbouncer = socket(&neon, &neon.pgbouncer_url()).await;
        is_cancelled::<Connection>(&neon, &pgbouncer).await;
    }
    for url in ways(&neon).await {
        is_cancelled::<Connection>(&neon, &url).await;
    }
}

#[tokio::test]
async fn what_async_pg_connection_leaves_behind_is_cancelled_too() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) VALUES ('Ada')")
        .await
        .unwrap();
    for url in ways(&neon).await {
        is_cancelled::<AsyncPgConnection>(&neon, &url).await;
    }
    if TRACKED {
        is_cancelled::<AsyncPgConnection>(&neon, &neon.pooled_url()).await;
    }
}

#[tokio::test]
async fn pipelined_statements_are_all_cancelled() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        let connection = get(&pool).await;
        let shared = &*connection;
        let sleeping = (0..8).map(|_| {
            let mut shared = shared;
            async move { shared.batch_execute("SELECT pg_sleep(60)").await }
        });
        let sleeping = join_all(sleeping);
        let running = until(&neon, RUNNING, "1");
        let running = select(Box::pin(sleeping), Box::pin(running)).await;
        assert!(running.is_right(), "{route}");
        drop(running);
        drop(connection);
        pool.close(HANG).await.unwrap();
        until(&neon, RUNNING, "0").await;
    }
}

#[tokio::test]
async fn statements_that_are_dropped_one_after_the_other_are_all_cancelled() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = connect(&url).await;
        let run = async |sql: &str| {
            let mut shared = &connection;
            shared.batch_execute(sql).await
        };
        let mut slow = Box::pin(run("SELECT pg_sleep(600)"));
        let mut behind = Box::pin(run("SELECT 1"));
        assert!(poll_immediate(&mut slow).await.is_none(), "{route}");
        assert!(poll_immediate(&mut behind).await.is_none(), "{route}");
        until(&neon, RUNNING, "1").await;
        drop(behind);
        // What reads for nobody has its turn, and waits for the one in front.
        until(&neon, RUNNING, "1").await;
        drop(slow);
        until(&neon, RUNNING, "0").await;
    }
}

#[tokio::test]
async fn a_statement_that_its_cancel_request_overtakes_is_stopped_too() {
    let neon = start().await;
    let url = neon.postgres_url();
    let server = (
        "127.0.0.1",
        DatabaseUrl::parse(&url).unwrap().hosts()[0].port,
    );
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = front.local_addr().unwrap().port();
    let fronted = url.replace(&format!(":{}/", server.1), &format!(":{port}/"));
    let held_back = Arc::new(watch::Sender::new(false));
    let (overtaking, mut overtakes) = mpsc::unbounded_channel();
    let holds = Arc::clone(&held_back);
    tokio::spawn(async move {
        for nth in 0.. {
            let (mut client, _) = front.accept().await.unwrap();
            let mut server = TcpStream::connect(server).await.unwrap();
            let mut held_back = holds.subscribe();
            let overtaking = overtaking.clone();
            tokio::spawn(async move {
                if nth > 0 {
                    copy_bidirectional(&mut client, &mut server).await.unwrap();
                    return overtaking.send(()).unwrap();
                }
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let up = async {
                    let mut bytes = [0; 4096];
                    while let Ok(len @ 1..) = from_client.read(&mut bytes).await {
                        held_back.wait_for(|held_back| !held_back).await.unwrap();
                        to_server.write_all(&bytes[..len]).await.unwrap();
                    }
                };
                let down = tokio::io::copy(&mut from_server, &mut to_client);
                let _ = select(Box::pin(up), Box::pin(down)).await;
            });
        }
    });

    let pool = pool(fronted.as_str(), |policy| policy.max_size(1));
    let mut connection = get(&pool).await;
    held_back.send_replace(true);
    let statement = connection.batch_execute("SELECT pg_sleep(60)");
    assert!(poll_immediate(statement).await.is_none());
    drop(connection);
    timeout(HANG, overtakes.recv()).await.expect("no hang");
    held_back.send_replace(false);
    pool.close(HANG).await.unwrap();
    until(&neon, RUNNING, "0").await;
    assert!(
        overtakes.recv().await.is_some(),
        "the second one has stopped it"
    );
}

#[tokio::test]
async fn a_transaction_that_is_given_up_leaves_nothing_open() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        // Dropped at each await: behind BEGIN, in a statement, between two, and in COMMIT.
        for polls in 0..12 {
            let mut connection = get(&pool).await;
            let mut transaction = Box::pin(connection.transaction(async |connection| {
                for _ in 0..2 {
                    diesel::insert_into(users::table)
                        .values(users::name.eq(format!("{polls}")))
                        .on_conflict_do_nothing()
                        .execute(connection)
                        .await?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, Error>(())
            }));
            for _ in 0..polls {
                if poll_immediate(&mut transaction).await.is_some() {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
            drop(transaction);
            drop(connection);
            let mut connection = get(&pool).await;
            let next = connection
                .transaction(async |connection| {
                    users::table.count().get_result::<i64>(connection).await
                })
                .await;
            assert!(next.is_ok(), "{route}, {polls}: {next:?}");
            drop(connection);
            until(&neon, IN_TRANSACTION, "0").await;
        }
        neon.sql("TRUNCATE users").await.unwrap();
    }
}

#[tokio::test]
async fn a_begin_that_was_not_sent_costs_no_connection() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let mut connection = get(&pool).await;
    let before = backend(&mut connection).await;
    let waiting = connection.transaction(async |_| {
        std::future::pending::<()>().await;
        Ok::<_, Error>(())
    });
    assert!(poll_immediate(waiting).await.is_none());
    drop(connection);
    let mut connection = get(&pool).await;
    assert_eq!(backend(&mut connection).await, before);
    assert_eq!(
        neon.sql(IN_TRANSACTION).await.unwrap()[0][0].as_deref(),
        Some("0")
    );
}

#[tokio::test]
async fn a_stream_dropped_half_way_is_cancelled() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        let mut connection = get(&pool).await;
        let query = "SELECT generate_series(1, 100000000) AS n, repeat('x', 1000)";
        let mut rows = sql_query(query)
            .load_stream::<Number>(&mut connection)
            .await
            .unwrap();
        for n in 1..=10 {
            assert_eq!(rows.next().await.unwrap().unwrap().n, n);
        }
        drop(rows);
        drop(connection);
        let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
             AND query LIKE '%100000000%' AND pid <> pg_backend_pid()";
        until(&neon, active, "0").await;
        let mut connection = get(&pool).await;
        assert_eq!(
            sql_query("SELECT 1").execute(&mut connection).await,
            Ok(1),
            "{route}"
        );
    }
}

#[tokio::test]
async fn the_first_of_several_rows_costs_no_connection() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let before = neon.counters();
        let pool = pool(&url, |policy| policy.max_size(1));
        for rows in [1, 2, 1000, 20_000] {
            let mut connection = get(&pool).await;
            let query = format!("SELECT n FROM generate_series(1, {rows}) AS n");
            let first: Number = sql_query(query).get_result(&mut connection).await.unwrap();
            assert_eq!(first.n, 1);
        }
        let mut connection = get(&pool).await;
        assert_eq!(sql_query("SELECT 1").execute(&mut connection).await, Ok(1));
        assert_eq!(counted(&neon, &url, before).connections, 1, "{url}");
    }
}

#[tokio::test]
async fn a_sibling_that_fails_first_does_not_cost_the_connection() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    undisturbed(async |given_up| {
        let mut connection = get(&pool).await;
        let before = backend(&mut connection).await;
        for _ in 0..10 {
            let shared = &*connection;
            let wrong = sql_query("SELECT nonsense").execute(&mut &*shared).boxed();
            let right = sql_query("SELECT 1").execute(&mut &*shared).boxed();
            given_up.note();
            let failed = futures_util::future::try_join(wrong, right).await;
            if failed.unwrap_err().is_connection_lost() {
                return false;
            }
        }
        match sql_query("SELECT 1").execute(&mut connection).await {
            Err(error) if error.is_connection_lost() => return false,
            next => assert_eq!(next, Ok(1)),
        }
        assert_eq!(backend(&mut connection).await, before);
        true
    })
    .await;
}

#[tokio::test]
async fn a_raw_begin_is_seen_on_return() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let pool = pool(&url, |policy| policy.max_size(1));
        let mut connection = get(&pool).await;
        sql_query("BEGIN").execute(&mut connection).await.unwrap();
        drop(connection);
        until(&neon, IN_TRANSACTION, "0").await;
        let mut connection = get(&pool).await;
        assert_eq!(
            sql_query("SELECT 1").execute(&mut connection).await,
            Ok(1),
            "{route}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_dies_while_idle_is_not_handed_out() {
    let neon = start().await;
    let pool = pool(&neon.postgres_url(), |policy| {
        policy.max_size(1).validation_bypass(HANG)
    });
    let mut connection = get(&pool).await;
    let before = backend(&mut connection).await;
    drop(connection);
    neon.sql(&format!("SELECT pg_terminate_backend({before})"))
        .await
        .unwrap();
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {before}");
    until(&neon, &gone, "0").await;
    sleep(Duration::from_millis(50)).await;
    let mut connection = get(&pool).await;
    assert_ne!(backend(&mut connection).await, before);
}
