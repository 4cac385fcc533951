//! A statement whose server is silent is looked after: it waits on while the server is at it, and ends once it is lost.
#![allow(missing_docs)]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{HANG, RUNNING, pool, pool_of, start, until};
use diesel::sql_types::Integer;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Closed, Connection, DatabaseErrorExt, PolicyBuilder, Pool, RetryError};
use futures_util::StreamExt;
use futures_util::future::join_all;
use neon_sim::{NeonSim, Suspension};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, timeout};

const THRESHOLD: Duration = Duration::from_millis(200);

fn watched(policy: PolicyBuilder) -> PolicyBuilder {
    policy.silence_threshold(THRESHOLD)
}

/// Hands connections out unasked, however long they have idled.
fn trusting(policy: PolicyBuilder) -> PolicyBuilder {
    watched(policy).never_suspends().validation_bypass(HANG)
}

/// Longer than an answer of a busy machine takes.
const A_MOMENT: Duration = Duration::from_secs(3);

/// Waits until nothing asks or connects that a late answer has made ask.
async fn settled(pool: &Pool) {
    let settled = async {
        loop {
            // What was spawned has begun by then.
            sleep(Duration::from_millis(20)).await;
            let status = pool.status();
            if status.connecting + status.checking + status.suspect == 0 {
                return;
            }
        }
    };
    timeout(HANG, settled).await.expect("no hang");
}

/// Counts the rows of the table `users`, past the proxy.
async fn users(neon: &NeonSim) -> String {
    let rows = neon.sql("SELECT count(*) FROM users").await.unwrap();
    rows[0][0].clone().unwrap()
}

/// Opens a connection, and lets it idle for a moment.
async fn warm(pool: &Pool) {
    let mut connection = pool.get().await.unwrap();
    connection.batch_execute("SELECT 1").await.unwrap();
    drop(connection);
    sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn silence_threshold_lets_a_statement_wait_on_that_runs_or_waits_for_a_lock() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url(), neon.postgres_url()] {
        let pool = pool(&url, |policy| watched(policy).max_size(2));
        let sleeping = "SELECT pg_sleep(1.2)";
        for _ in 0..2 {
            let mut connection = pool.get().await.unwrap();
            let done = timeout(HANG, connection.batch_execute(sleeping)).await;
            assert_eq!(done.unwrap(), Ok(()), "{url}");
        }
        let mut holder = pool.get().await.unwrap();
        holder
            .batch_execute("BEGIN; LOCK TABLE users")
            .await
            .unwrap();
        let mut waiter = pool.get().await.unwrap();
        let waits = waiter.batch_execute("SELECT count(*) FROM users");
        let frees = async {
            sleep(6 * THRESHOLD).await;
            holder.batch_execute("ROLLBACK").await
        };
        let both = async { tokio::join!(waits, frees) };
        assert_eq!(
            timeout(HANG, both).await.unwrap(),
            (Ok(()), Ok(())),
            "{url}"
        );
        drop((holder, waiter));
        let closed = pool.status().closed;
        assert_eq!((closed.silent, closed.ended), (0, 0), "{url}: {closed:?}");
    }
    let pool = pool_of::<AsyncPgConnection>(&neon.url(), watched);
    let mut connection = pool.get().await.unwrap();
    let done = connection.batch_execute("SELECT pg_sleep(1)");
    assert_eq!(timeout(HANG, done).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_statement_whose_process_is_gone_ends_as_lost() {
    let neon = start().await;
    for is_restarted in [false, true] {
        let pool = pool(&neon.url(), |policy| {
            trusting(policy)
                .max_size(1)
                .validation_timeout(Duration::from_secs(15))
        });
        warm(&pool).await;
        settled(&pool).await;
        let opened = pool.status().connects.opened;
        match is_restarted {
            false => neon.suspend(Suspension::Silent).await,
            true => {
                neon.lose_responses();
                neon.restart_postgres(Duration::ZERO).await.unwrap();
            }
        }
        let mut connection = pool.get().await.unwrap();
        let lost = timeout(HANG, connection.batch_execute("SELECT 1")).await;
        let error = lost.expect("no hang").unwrap_err();
        assert!(
            error.is_connection_lost() && error.is_transient(),
            "{error}"
        );
        assert!(!error.is_undelivered() && !error.is_response_timeout());
        assert!(error.to_string().contains("process is gone"), "{error}");
        drop(connection);
        assert_eq!(
            pool.status().connects.opened,
            opened + 1,
            "{}",
            pool.status()
        );
        warm(&pool).await;
        let status = pool.status();
        assert_eq!(status.closed.silent, 1, "{status}");
    }
}

#[tokio::test]
async fn the_end_of_a_copy_whose_process_is_gone_is_lost_as_any_statement_is() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| trusting(policy).max_size(1));
    let mut connection = pool.get().await.unwrap();
    let mut copy = connection
        .copy_in("COPY users (name) FROM STDIN")
        .await
        .unwrap();
    copy.send(b"Ada\n").await.unwrap();
    // Nothing is owed while the server waits for data.
    sleep(6 * THRESHOLD).await;
    copy.send(b"Grace\n").await.unwrap();
    neon.suspend(Suspension::Silent).await;
    let lost = timeout(HANG, copy.finish()).await;
    let error = lost.expect("no hang").unwrap_err();
    assert!(error.is_connection_lost(), "{error}");
    assert!(error.to_string().contains("process is gone"), "{error}");
}

#[tokio::test]
async fn a_statement_that_never_arrived_is_done_again() {
    let neon = start().await;
    let insert = async |connection: &mut Connection| {
        let insert = "INSERT INTO users (name) VALUES ('n' || (SELECT count(*) FROM users))";
        connection.batch_execute(insert).await?;
        Ok::<_, RetryError>(())
    };
    let pool = pool(&neon.url(), |policy| trusting(policy).max_size(1));
    for way in 0..3 {
        warm(&pool).await;
        // Else the process may have run the statement in the moment behind its last.
        sleep(A_MOMENT).await;
        neon.lose_requests();
        match way {
            0 => {
                let mut connection = pool.get().await.unwrap();
                let done = timeout(HANG, insert(&mut connection))
                    .await
                    .expect("no hang");
                let RetryError::Query(error) = done.unwrap_err() else {
                    panic!();
                };
                assert!(
                    error.is_undelivered() && error.is_connection_lost(),
                    "{error}"
                );
                assert!(error.to_string().contains("never arrived"), "{error}");
            }
            1 => timeout(HANG, pool.retry().run(insert))
                .await
                .unwrap()
                .unwrap(),
            _ => {
                let work = pool.retry().transaction(insert);
                timeout(HANG, work).await.unwrap().unwrap();
            }
        }
        assert_eq!(users(&neon).await, way.to_string());
        assert_eq!(pool.status().closed.silent, way + 1, "{}", pool.status());
    }
    // Its process does nothing later.
    drop(pool);
    until(&neon, CLIENTS, "0").await;
}

const CLIENTS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'";

#[tokio::test]
async fn a_commit_that_never_arrived_has_its_transaction_done_again() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| trusting(policy).max_size(1));
    warm(&pool).await;
    let attempts = AtomicU32::new(0);
    let work = async |connection: &mut Connection| {
        let insert = "INSERT INTO users (name) VALUES ('a')";
        connection.batch_execute(insert).await?;
        if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
            neon.lose_requests();
        }
        Ok::<_, RetryError>(())
    };
    let done = timeout(HANG, pool.retry().transaction(work)).await;
    done.expect("no hang").unwrap();
    assert_eq!(attempts.into_inner(), 2);
    assert_eq!(users(&neon).await, "1");
}

#[tokio::test]
async fn a_commit_that_begins_the_next_transaction_is_not_taken_for_a_rollback() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| trusting(policy).max_size(1));
    warm(&pool).await;
    let attempts = AtomicU32::new(0);
    let work = async |connection: &mut Connection| {
        attempts.fetch_add(1, Ordering::Relaxed);
        let insert = "INSERT INTO users (name) VALUES ('a')";
        connection.batch_execute(insert).await?;
        neon.lose_responses();
        connection.batch_execute("COMMIT AND CHAIN").await?;
        Ok::<_, RetryError>(())
    };
    let done = timeout(HANG, pool.retry().transaction(work)).await;
    let error = done.expect("no hang").unwrap_err().to_string();
    // The process has been idle about as long as nothing was heard of it, so that it may be told that the answer is lost.
    let is_open = ["may have run", "its answer is lost"];
    assert!(is_open.iter().any(|words| error.contains(words)), "{error}");
    assert_eq!(attempts.into_inner(), 1);
    assert_eq!(users(&neon).await, "1");
}

#[tokio::test]
async fn a_statement_whose_answer_is_lost_is_done_again_only_if_it_is_idempotent() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| trusting(policy).max_size(1));
    for is_idempotent in [false, true] {
        warm(&pool).await;
        // The process is heard of later than the connection, by more than the question takes.
        sleep(A_MOMENT).await;
        neon.sql("TRUNCATE users").await.unwrap();
        let attempts = AtomicU32::new(0);
        let work = async |connection: &mut Connection| {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            if attempt == 0 {
                neon.lose_responses();
            }
            let insert = format!("INSERT INTO users (name) VALUES ('{attempt}')");
            connection.batch_execute(&insert).await?;
            Ok::<_, RetryError>(())
        };
        let done = async {
            match is_idempotent {
                true => pool.retry().idempotent().run(work).await,
                false => pool.retry().run(work).await,
            }
        };
        let done = timeout(HANG, done).await.expect("no hang");
        assert_eq!(users(&neon).await, if is_idempotent { "2" } else { "1" });
        if is_idempotent {
            done.unwrap();
            continue;
        }
        let RetryError::Query(error) = done.unwrap_err() else {
            panic!();
        };
        assert!(
            error.is_connection_lost() && !error.is_undelivered(),
            "{error}"
        );
        assert!(error.to_string().contains("its answer is lost"), "{error}");
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    n: i32,
}

#[tokio::test]
async fn what_waits_for_the_caller_is_not_silence() {
    let neon = start().await;
    let pool = pool(&neon.url(), trusting);
    warm(&pool).await;
    let waits = async || {
        settled(&pool).await;
        let before = neon.counters().direct;
        sleep(5 * THRESHOLD).await;
        let after = neon.counters().direct;
        assert_eq!(after.connections, before.connections);
        assert_eq!(after.statements, before.statements);
    };

    let mut connection = pool.get().await.unwrap();
    let mut copy = connection
        .copy_in("COPY users (name) FROM STDIN")
        .await
        .unwrap();
    copy.send(b"a\n").await.unwrap();
    waits().await;
    copy.send(b"b\n").await.unwrap();
    waits().await;
    assert_eq!(copy.finish().await, Ok(2));

    connection.batch_execute("BEGIN").await.unwrap();
    waits().await;
    connection.batch_execute("COMMIT").await.unwrap();

    // More than the sockets' buffers hold.
    let rows = "SELECT n, repeat('x', 9000) FROM generate_series(1, 3000) AS n";
    let rows = sql_query(rows).load_stream::<Row>(&mut connection).await;
    let mut rows = Box::pin(rows.unwrap());
    let mut last = 0;
    while let Some(row) = rows.next().await {
        last = row.unwrap().n;
        if last % 1000 == 5 {
            waits().await;
        }
    }
    assert_eq!(last, 3000);
    drop(rows);
    drop(connection);
    assert_eq!(pool.status().closed, Closed::default());
}

#[tokio::test]
async fn while_answers_come_a_connection_is_asked_once_for_its_process() {
    let neon = start().await;
    let long = Duration::from_secs(8);
    for (threshold, asked) in [(Some(long), 1), (None, 0)] {
        let pool = pool(&neon.url(), |policy| {
            trusting(policy).silence_threshold(threshold)
        });
        let before = neon.counters().direct;
        for _ in 0..20 {
            let mut connection = pool.get().await.unwrap();
            connection.batch_execute("SELECT 1").await.unwrap();
            sleep(Duration::from_millis(25)).await;
        }
        // Past several looks of the pool.
        sleep(long / 2).await;
        let after = neon.counters().direct;
        assert_eq!(after.statements - before.statements, 20 + asked);
        let logged_in = before.flights + 20;
        let flights = after.flights;
        assert!(flights - logged_in < 10, "{flights} {logged_in}");
    }
}

#[tokio::test]
async fn behind_a_pooler_the_silence_of_siblings_counts_and_nothing_else() {
    let neon = start().await;
    let patience = Duration::from_secs(4);
    let policy = |policy: PolicyBuilder| trusting(policy).validation_timeout(patience);
    let pool = pool(&neon.pooled_url(), |set| policy(set).max_size(3));
    // All are in use, and may be busy with long statements.
    let all = Barrier::new(3);
    let long = (0..3).map(|_| async {
        let mut connection = pool.get().await.unwrap();
        all.wait().await;
        connection.batch_execute("SELECT pg_sleep(1.5)").await
    });
    let long = timeout(HANG, join_all(long)).await.unwrap();
    assert!(long.iter().all(Result::is_ok), "{long:?}");

    neon.suspend(Suspension::Silent).await;
    let mut connection = pool.get().await.unwrap();
    let lost = timeout(HANG, connection.batch_execute("SELECT 1")).await;
    let error = lost.expect("no hang").unwrap_err();
    assert!(
        error.is_connection_lost() && !error.is_undelivered(),
        "{error}"
    );
    assert!(error.to_string().contains("are dead"), "{error}");
    drop(connection);
    warm(&pool).await;
}

#[tokio::test]
async fn a_session_of_tokio_postgres_ends_with_its_siblings() {
    let neon = start().await;
    let patience = Duration::from_millis(500);
    let policy = |policy: PolicyBuilder| trusting(policy).validation_timeout(patience);
    let pool = pool_of::<AsyncPgConnection>(&neon.url(), policy);
    let held = join_all((0..3).map(|_| pool.get())).await;
    for connection in held {
        connection.unwrap().batch_execute("SELECT 1").await.unwrap();
    }
    neon.suspend(Suspension::Silent).await;
    let mut connection = pool.get().await.unwrap();
    let lost = timeout(HANG, connection.batch_execute("SELECT 1")).await;
    let error = lost.expect("no hang").unwrap_err();
    assert!(error.is_connection_lost(), "{error}");
    drop(connection);
    assert_eq!(pool.status().closed.silent, 1, "{}", pool.status());
}

#[tokio::test]
async fn callers_that_leave_and_a_pool_that_closes_are_no_harm() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| trusting(policy).max_size(2));
    for _ in 0..5 {
        warm(&pool).await;
        neon.lose_requests();
        for patience in [1, 2, 3] {
            let mut connection = pool.get().await.unwrap();
            let waiting = connection.batch_execute("SELECT 1");
            let patience = THRESHOLD / 2 * patience;
            let _ = timeout(patience, waiting).await;
        }
    }
    warm(&pool).await;
    let status = pool.status();
    assert!(status.size <= 4 && status.in_use == 0, "{status}");

    neon.lose_requests();
    let mut connection = pool.get().await.unwrap();
    let closed = pool.clone();
    let waiting = tokio::spawn(async move {
        let pool = closed;
        let mut connection = pool.get().await?;
        let closing = pool.close(THRESHOLD);
        let statement = timeout(3 * THRESHOLD, connection.batch_execute("SELECT 1"));
        let (closed, _) = tokio::join!(closing, statement);
        assert!(closed.is_err());
        drop(connection);
        Ok::<_, diesel_neon::PoolError>(())
    });
    let _ = timeout(THRESHOLD, connection.batch_execute("SELECT 1")).await;
    drop(connection);
    timeout(HANG, waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_pool_that_is_full_of_long_statements_stays_as_wide_as_it_is() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| watched(policy).max_size(3));
    let began = Instant::now();
    let long = (0..9).map(|_| async {
        let mut connection = pool.get().await.unwrap();
        connection.batch_execute("SELECT pg_sleep(0.8)").await
    });
    let long = timeout(HANG, join_all(long)).await.unwrap();
    assert!(long.iter().all(Result::is_ok), "{long:?}");
    let status = pool.status();
    assert!(status.size <= 3, "{status}");
    assert_eq!(status.closed.silent + status.closed.ended, 0, "{status}");
    // The pauses between those that are made to ask double, from a second on.
    let asking = 2 + (began.elapsed().as_secs() + 1).ilog2();
    let opened = status.connects.opened;
    assert!(opened <= 3 + u64::from(asking), "{status}");
    until(&neon, RUNNING, "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_connections_that_have_just_died_loses_nothing() {
    const REQUESTS: usize = 300;
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| {
        trusting(policy).silence_threshold(Duration::from_secs(1))
    });
    let held = join_all((0..10).map(|_| pool.get())).await;
    let held: Vec<_> = held.into_iter().map(Result::unwrap).collect();
    let warmed = held.into_iter().map(|mut connection| async move {
        connection.batch_execute("SELECT 1").await.unwrap();
    });
    join_all(warmed).await;
    let opened = pool.status().connects.opened;
    assert_eq!(opened, 10);
    neon.suspend(Suspension::Silent).await;
    let began = Instant::now();
    let requests = (0..REQUESTS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let work = async |connection: &mut Connection| {
                connection.batch_execute("SELECT 1").await?;
                Ok::<_, RetryError>(())
            };
            pool.retry()
                .idempotent()
                .run(work)
                .await
                .map(|()| began.elapsed())
        })
    });
    let answers = timeout(HANG, join_all(requests)).await.expect("no hang");
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    let answered = || answers.iter().flatten();
    let (first, last) = (answered().min(), answered().max());
    println!("{failed} of {REQUESTS} failed; answers after {first:?} to {last:?}");
    assert_eq!(failed, 0, "{}", pool.status());
    // The last may still be made when all have their answers.
    let made = async {
        while pool.status().connecting > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, made).await.expect("no hang");
    let status = pool.status();
    assert!(status.connects.opened <= 20, "{status}");
    assert_eq!(status.closed.silent, 10, "{status} {:?}", status.closed);
}
