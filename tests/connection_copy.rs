//! A COPY that fails or is given up leaves nothing behind.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::time::Duration;

use common::{HANG, connect, counted, neon_with, routes, start, undisturbed_for, users};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseErrorExt};
use futures_util::StreamExt;
use futures_util::future::poll_immediate;
use neon_sim::NeonSim;
use tokio::time::{Instant, sleep, timeout};

const COPY: &str = "COPY users (id, name) FROM STDIN";
/// How long a response may still take once nobody waits for it.
const GRACE: Duration = Duration::from_millis(100);
/// How long the server may be silent in the middle of a response that nobody reads.
const SILENCE: Duration = Duration::from_millis(500);

async fn insert(connection: &mut Connection, name: String) -> QueryResult<usize> {
    let insert = diesel::insert_into(users::table).values(users::name.eq(name));
    timeout(HANG, insert.execute(connection))
        .await
        .expect("no hang")
}

/// Starts a stand-in whose pooler has one server connection for all clients.
async fn scarce() -> NeonSim {
    let one = [("default_pool_size", "1")];
    let neon = neon_with(|neon| neon.pgbouncer_settings(one)).await;
    let schema = "CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL UNIQUE); \
         GRANT ALL ON users, users_id_seq TO PUBLIC";
    neon.sql(schema).await.unwrap();
    neon
}

#[tokio::test]
async fn data_behind_a_failure_keeps_no_server_from_others() {
    let neon = scarce().await;
    let far = Duration::from_millis(50);
    for url in [neon.pooled_url(), neon.pgbouncer_url()] {
        let mut own = connect(&url).await;
        let mut other = connect(&url).await;
        // The pause before the next data: long enough to know of the failure, or so short that it is on its way.
        for (n, wait) in [300, 75, 0].into_iter().enumerate() {
            for way in ["finish", "drop", "go on and finish", "go on and drop"] {
                let what = format!("{n}, {way}");
                neon.set_latency(far);
                let mut copy = own.copy_in(COPY).await.unwrap();
                copy.send(b"not a number\t\n").await.unwrap();
                sleep(Duration::from_millis(wait)).await;
                if way.starts_with("go on") {
                    for _ in 0..3 {
                        copy.send(b"1\tAda\n").await.unwrap();
                        sleep(Duration::from_millis(wait / 10)).await;
                    }
                }
                match way.ends_with("finish") {
                    true => {
                        let failed = copy.finish().await.unwrap_err();
                        assert_eq!(failed.sqlstate(), Some("22P02"), "{what}");
                    }
                    false => drop(copy),
                }
                sleep(4 * far).await;
                neon.set_latency(Duration::ZERO);
                let others = insert(&mut other, format!("{url}, {what}, other"));
                assert_eq!(others.await, Ok(1), "{what}");
                match insert(&mut own, format!("{url}, {what}, own")).await {
                    // With latency, a response that was given up may cost the connection.
                    Err(error) if way.ends_with("drop") && error.is_connection_lost() => {
                        own = connect(&url).await;
                    }
                    inserted => assert_eq!(inserted, Ok(1), "{what}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_copy_that_fails_in_a_transaction_keeps_no_server_from_others() {
    let neon = scarce().await;
    let far = Duration::from_millis(50);
    for url in [neon.pooled_url(), neon.pgbouncer_url()] {
        let mut own = connect(&url).await;
        let mut other = connect(&url).await;
        // In the second case the end of the data and the failure cross on the way.
        for wait in [300, 75, 0] {
            neon.set_latency(far);
            let failed = own.transaction(async |own| {
                let mut copy = own.copy_in(COPY).await?;
                copy.send(b"not a number\t\n").await?;
                sleep(Duration::from_millis(wait)).await;
                copy.finish().await
            });
            assert_eq!(
                failed.await.unwrap_err().sqlstate(),
                Some("22P02"),
                "{wait}"
            );
            neon.set_latency(Duration::ZERO);
            for (whose, connection) in [("other", &mut other), ("own", &mut own)] {
                let inserted = insert(connection, format!("{url}, {wait}, {whose}"));
                assert_eq!(inserted.await, Ok(1), "{wait}, {whose}");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_given_up_before_its_data_costs_no_connection() {
    let neon = start().await;
    neon.set_latency(Duration::from_millis(2));
    for (route, url) in routes(&neon) {
        let before = neon.counters();
        let mut connection = connect(&url).await;
        let mut late = 0;
        for polls in 0..10 {
            for tries in 1.. {
                let mut copy = Box::pin(connection.copy_in(COPY));
                for _ in 0..polls {
                    if poll_immediate(&mut copy).await.is_some() {
                        break;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
                drop(copy);
                let given_up = Instant::now();
                sleep(Duration::from_millis(30)).await;
                let next = insert(&mut connection, format!("{route}, {polls}, {tries}"));
                match next.await {
                    // On a busy machine the response may be late, which costs the connection, and never before.
                    Err(error) if error.is_connection_lost() && tries < 4 => {
                        assert!(given_up.elapsed() >= GRACE, "{route}, {polls}: {error}");
                        late += 1;
                        connection = connect(&url).await;
                    }
                    inserted => {
                        assert_eq!(inserted, Ok(1), "{route}, {polls}");
                        break;
                    }
                }
            }
        }
        let connections = counted(&neon, &url, before).connections;
        assert!(connections <= 1 + late, "{route}: {connections}");
    }
}

#[tokio::test]
async fn data_that_is_given_up_on_a_slow_line_costs_time_and_not_the_connection() {
    let neon = start().await;
    for (route, url) in [("direct", neon.url()), ("pooled", neon.pooled_url())] {
        undisturbed_for(SILENCE, async |given_up| {
            let mut connection = connect(&url).await;
            neon.set_latency(GRACE);
            let mut copy = connection.copy_in(COPY).await.unwrap();
            copy.send(b"1\tAda\n").await.unwrap();
            given_up.note();
            drop(copy);
            let next = timeout(HANG, connection.batch_execute("SELECT 1")).await;
            neon.set_latency(Duration::ZERO);
            match next.expect("no hang") {
                Err(error) if error.is_connection_lost() => return false,
                next => assert_eq!(next, Ok(()), "{route}"),
            }
            true
        })
        .await;
    }
}

#[tokio::test]
async fn rows_that_still_come_out_cost_time_and_not_the_connection() {
    let neon = start().await;
    let slow = "COPY (SELECT n, repeat('x', 9000), pg_sleep(0.01) FROM generate_series(1, 60) AS n) \
         TO STDOUT";
    for (route, url) in routes(&neon) {
        undisturbed_for(SILENCE, async |given_up| {
            let mut connection = connect(&url).await;
            given_up.note();
            let mut rows = connection.copy_out(slow).await.unwrap();
            rows.next().await.unwrap().unwrap();
            drop(rows);
            let next = timeout(HANG, connection.batch_execute("SELECT 1")).await;
            match next.expect("no hang") {
                Err(error) if error.is_connection_lost() => return false,
                next => assert_eq!(next, Ok(()), "{route}"),
            }
            true
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_copy_in_one_text_fails_and_its_rows_are_not_counted() {
    const TWO: &str = "COPY users (id, name) FROM STDIN; COPY users (id, name) FROM STDIN";
    let one_pooled = scarce().await;
    let one_direct = start().await;
    for url in [
        one_pooled.pooled_url(),
        one_pooled.pgbouncer_url(),
        one_direct.url(),
    ] {
        let mut connection = connect(&url).await;
        let twice = async {
            let mut copy = connection.copy_in(TWO).await?;
            copy.send(b"1\tAda\n").await?;
            copy.finish().await
        };
        let failed = timeout(HANG, twice).await.expect("no hang").unwrap_err();
        assert!(failed.to_string().contains("STDIN once"), "{url}: {failed}");

        let both = async {
            let out = "COPY (SELECT 1) TO STDOUT; COPY users (id, name) FROM STDIN";
            let mut rows = connection.copy_out(out).await?;
            while let Some(row) = rows.next().await {
                row?;
            }
            Ok::<_, diesel::result::Error>(())
        };
        let failed = timeout(HANG, both).await.expect("no hang").unwrap_err();
        assert!(failed.to_string().contains("STDIN once"), "{url}: {failed}");

        let text = format!("{COPY}; SELECT generate_series(1, 7)");
        let mut copy = connection.copy_in(&text).await.unwrap();
        copy.send(b"1001\tAda\n1002\tGrace\n").await.unwrap();
        let copied = timeout(HANG, copy.finish()).await.expect("no hang");
        assert_eq!(copied, Ok(2), "{url}");

        // No server is kept from others.
        let mut other = connect(&url).await;
        let inserted = insert(&mut other, url.clone()).await;
        assert_eq!(inserted, Ok(1), "{url}");
        let deleted = diesel::delete(users::table).execute(&mut connection).await;
        assert_eq!(deleted, Ok(3), "{url}");
    }
}

#[tokio::test]
async fn a_send_that_is_dropped_in_the_middle_copies_nothing_and_one_that_has_not_begun_can_be_made_again()
 {
    let neon = start().await;
    // The server reads no data before it has the lock.
    neon.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
         CREATE TRIGGER wait BEFORE INSERT ON users EXECUTE FUNCTION wait()",
    )
    .await
    .unwrap();
    let mut keeper = connect(&neon.postgres_url()).await;
    for (route, url) in routes(&neon) {
        let mut connection = connect(&url).await;
        for piece_len in [32 << 20, 1 << 17] {
            let lock = "BEGIN; SELECT pg_advisory_xact_lock(1)";
            keeper.batch_execute(lock).await.unwrap();
            let mut copy = connection
                .copy_in("COPY users (name) FROM STDIN")
                .await
                .unwrap();
            let mut sent = 0;
            let mut row = 0;
            let unsent = loop {
                let mut piece = String::new();
                while piece.len() < piece_len {
                    row += 1;
                    piece += &format!("{row} {}\n", "x".repeat(1 << 13));
                }
                let send = copy.send(piece.as_bytes());
                if timeout(Duration::from_millis(500), send).await.is_err() {
                    break piece;
                }
                sent = row;
            };
            keeper.batch_execute("ROLLBACK").await.unwrap();
            let is_whole = piece_len < 1 << 20;
            if is_whole {
                copy.send(unsent.as_bytes()).await.unwrap();
                sent = row;
            } else {
                // What follows mends nothing.
                copy.send(b"\n").await.unwrap();
            }
            let copied = timeout(HANG, copy.finish()).await.expect("no hang");
            match is_whole {
                true => assert_eq!(copied, Ok(sent), "{route}"),
                false => {
                    let failed = copied.unwrap_err();
                    assert!(
                        failed.to_string().contains("in the middle"),
                        "{route}: {failed}"
                    );
                    assert_eq!(failed.sqlstate(), Some("57014"), "{route}");
                }
            }
            let deleted = diesel::delete(users::table).execute(&mut connection).await;
            assert_eq!(deleted, Ok(sent), "{route}");
        }
    }
}
