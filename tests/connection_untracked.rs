//! Behind a pooler that does not track prepared statements, only the probe has a name.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{HANG, connect, counted, neon_with, pool, prepared, start};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Binary, Integer};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager as _};
use diesel_neon::{Connection, DatabaseErrorExt, NamedStatements};
use futures_util::future::{join, join_all, select};
use futures_util::poll;
use neon_sim::NeonSim;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

type Manager = <Connection as AsyncConnection>::TransactionManager;

#[tokio::test]
async fn named_statements_reach_no_pooler_that_does_not_track_them() {
    let neon = start().await;
    for names in [NamedStatements::Detect, NamedStatements::Never] {
        let before = neon.counters();
        let pool = pool(&neon.pooled_url(), |policy| {
            policy.max_size(3).named_statements(names)
        });
        for _ in 0..3 {
            let mut held = Vec::new();
            for n in 0..3 {
                let mut connection = pool.get().await.unwrap();
                let sum = diesel::select(n.into_sql::<Integer>() + 1);
                assert_eq!(sum.get_result(&mut connection).await, Ok(n + 1));
                held.push(connection);
            }
        }
        // The probe has a name, and deallocates it.
        let asked = u64::from(names == NamedStatements::Detect);
        assert_eq!(
            counted(&neon, &neon.pooled_url(), before).named_parses,
            asked
        );
        let connection = &mut connect(&neon.pgbouncer_url()).await;
        assert_eq!(prepared(connection).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_pgbouncer_behind_an_innocent_name_is_not_taken_for_postgres() {
    let neon = start().await;
    let pool = pool(&neon.pgbouncer_url(), |policy| policy.max_size(2));
    let (mut a, mut b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    for n in 0..5 {
        for connection in [&mut a, &mut b] {
            let sum = diesel::select(n.into_sql::<Integer>() + 1);
            assert_eq!(sum.get_result(connection).await, Ok(n + 1));
        }
    }
    assert_eq!(prepared(&mut a).await, [""; 0]);
}

#[tokio::test]
async fn a_first_statement_that_cannot_be_sent_costs_no_connection() {
    let neon = start().await;
    for is_text in [false, true] {
        let connection = &mut connect(&neon.pooled_url()).await;
        // The answer to the probe takes longer than one that nobody waits for may.
        neon.set_latency(Duration::from_millis(200));
        let refused = match is_text {
            false => sql_query("SELECT '\0'").execute(connection).await.map(drop),
            true => connection.batch_execute("SELECT '\0'").await,
        };
        assert!(refused.unwrap_err().to_string().contains("zero byte"));
        assert_eq!(sql_query("SELECT 1").execute(connection).await, Ok(1));
        neon.set_latency(Duration::ZERO);
    }
}

async fn of_two_servers() -> NeonSim {
    let two = [("default_pool_size", "2")];
    neon_with(|neon| neon.pgbouncer_settings(two)).await
}

/// Runs `tested` beside two other clients, which have statements all the time.
async fn beside_others(url: &str, tested: impl Future<Output = ()>) {
    let other = async || {
        let connection = &mut connect(url).await;
        for n in 0.. {
            let same = diesel::select(n.into_sql::<Integer>()).get_result(connection);
            assert_eq!(same.await, Ok(n));
        }
    };
    let others = join(other(), other());
    let done = select(Box::pin(tested), Box::pin(others));
    assert!(timeout(HANG, done).await.is_ok(), "no hang");
}

#[tokio::test]
async fn a_large_statement_behind_another_is_not_mixed_with_those_of_other_clients() {
    let neon = of_two_servers().await;
    let url = neon.pooled_url();
    let large = vec![7; 2_000_000];
    let of_large = async {
        for _ in 0..60 {
            // A probe goes in front of the first.
            let connection = connect(&url).await;
            let (mut first, mut second) = (&connection, &connection);
            let same = diesel::select(1.into_sql::<Integer>());
            let same = same.get_result::<i32>(&mut first);
            let back = diesel::select((&large).into_sql::<Binary>());
            let back = back.get_result::<Vec<u8>>(&mut second);
            let (same, back) = join(same, back).await;
            assert_eq!(same, Ok(1));
            assert!(back == Ok(large.clone()));
        }
    };
    beside_others(&url, of_large).await;
}

/// Returns the URL of a relay that passes on the last bytes of what a client sends a moment after the others.
async fn relay(url: &str) -> String {
    let server = url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0;
    let server = server.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let relayed = url.replace(&server, &here);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&server).await.unwrap();
            server.set_nodelay(true).unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut piece = vec![0; 64 * 1024];
                // PgBouncer wants each message of a login at once.
                for late in (0..69).cycle() {
                    let Ok(len @ 1..) = from_client.read(&mut piece).await else {
                        return;
                    };
                    let late = if piece[0] == b'P' { late } else { 0 };
                    let (first, last) = piece[..len].split_at(len - late);
                    to_server.write_all(first).await.unwrap();
                    sleep(Duration::from_millis(5)).await;
                    to_server.write_all(last).await.unwrap();
                }
            });
        }
    });
    relayed
}

#[tokio::test]
async fn statements_at_the_same_time_are_not_mixed_with_those_of_other_clients() {
    let neon = of_two_servers().await;
    let url = neon.pgbouncer_url();
    let in_pieces = async {
        let connection = &mut connect(&relay(&url).await).await;
        // The probe has its answer.
        assert_eq!(sql_query("SELECT 1").execute(connection).await, Ok(1));
        for n in 0..100 {
            let connection = &*connection;
            let same = [n, -n, n + 1, n + 2, n + 3, n + 4].map(|n| async move {
                let same = diesel::select(n.into_sql::<Integer>());
                assert_eq!(same.get_result(&mut { connection }).await, Ok(n));
            });
            join_all(same).await;
        }
    };
    beside_others(&url, in_pieces).await;
}

#[tokio::test]
async fn only_a_little_is_sent_before_the_pooler_is_known() {
    let neon = start().await;
    let (short, long) = ("SELECT 1", format!("SELECT 1 -- {}", "x".repeat(700)));
    let flights = async |sql: &str| {
        let connection = &connect(&neon.pooled_url()).await;
        let before = neon.counters();
        neon.set_latency(Duration::from_millis(50));
        let all = (0..4).map(|_| sql_query(sql).execute(&mut { connection }));
        assert_eq!(join_all(all).await, [const { Ok(1) }; 4]);
        neon.set_latency(Duration::ZERO);
        counted(&neon, &neon.pooled_url(), before).flights
    };
    assert_eq!(flights(short).await, 1);
    assert_eq!(flights(&long).await, 4);
}

#[tokio::test]
async fn those_who_send_one_statement_after_another_let_others_have_their_turn() {
    let neon = start().await;
    let connection = &connect(&neon.pooled_url()).await;
    assert_eq!(
        sql_query("SELECT 1").execute(&mut { connection }).await,
        Ok(1)
    );
    let busy = async || loop {
        let one = sql_query("SELECT 1").execute(&mut { connection }).await;
        assert_eq!(one, Ok(1));
    };
    let other = async {
        for _ in 0..10 {
            let two = sql_query("SELECT 2").execute(&mut { connection }).await;
            assert_eq!(two, Ok(1));
        }
    };
    let busy = join_all([busy(), busy()]);
    let done = timeout(HANG, select(Box::pin(busy), Box::pin(other)));
    assert!(done.await.is_ok(), "the other has waited for ever");
}

#[tokio::test]
async fn nothing_is_sent_behind_the_rollback_that_a_dropped_one_owes() {
    let neon = start().await;
    for _ in 0..10 {
        let connection = &mut connect(&neon.pooled_url()).await;
        Manager::begin_transaction(connection).await.unwrap();
        assert_eq!(sql_query("SELECT 1").execute(connection).await, Ok(1));
        let before = neon.counters();
        let mut given_up = Box::pin(connection.batch_execute("SELECT pg_sleep(0.02)"));
        assert!(poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        // It waits for the answer.
        let mut dropped = Box::pin(Manager::rollback_transaction(connection));
        assert!(poll!(dropped.as_mut()).is_pending());
        drop(dropped);
        let sum = diesel::select(1.into_sql::<Integer>() + 1);
        match sum.get_result(connection).await {
            // On a loaded machine, the answer took longer than one that nobody waits for may.
            Err(error) if error.is_connection_lost() => {}
            sum => {
                assert_eq!(sum, Ok(2));
                let flights = counted(&neon, &neon.pooled_url(), before).flights;
                return assert_eq!(flights, 3);
            }
        }
    }
    panic!("no answer came in time");
}
