//! Cancel requests that a proxy passes on late: each stops its own statement, and nothing else.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;
#[path = "common/front.rs"]
mod front;

use std::cell::OnceCell;
use std::pin::pin;
use std::time::Duration;

use common::{HANG, RUNNING, connect, counted, pool, start, until};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{ConnectErrorKind, Connection, DatabaseErrorExt};
use front::{Closes, Front};
use futures_util::future::{join, poll_immediate};
use neon_sim::NeonSim;
use tokio::time::{sleep, timeout};

async fn slow_one(connection: &mut Connection) -> QueryResult<i32> {
    // Long enough for a late request.
    sql_query("SELECT pg_sleep(0.2)")
        .execute(connection)
        .await?;
    let one = diesel::select(1.into_sql::<Integer>());
    one.get_result(connection).await
}

/// Counts the statements that wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

/// Holds up statements that ask for the advisory lock 7.
struct Gate(Connection);

impl Gate {
    async fn hold(neon: &NeonSim) -> Self {
        let mut connection = connect(&neon.postgres_url()).await;
        let lock = connection.batch_execute("SELECT pg_advisory_lock(7)");
        lock.await.unwrap();
        Self(connection)
    }

    async fn open(mut self) {
        let unlock = self.0.batch_execute("SELECT pg_advisory_unlock(7)");
        unlock.await.unwrap();
    }
}

#[tokio::test]
async fn without_a_running_statement_no_request_is_made_and_the_next_statement_is_safe() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    front.let_through.add_permits(1000);
    let mut connection = connect(&front.url).await;
    let token = connection.cancel_token();
    for round in 0..5 {
        token.cancel().await.unwrap();
        assert_eq!(slow_one(&mut connection).await, Ok(1), "{round}");
    }
    assert!(front.asked.try_recv().is_err());
    drop(connection);
    token.cancel().await.unwrap();

    // Neon's own proxy, as the stand-in models it, is safe as well.
    for url in [neon.url(), neon.pooled_url()] {
        let before = neon.counters();
        let mut connection = connect(&url).await;
        let token = connection.cancel_token();
        for round in 0..5 {
            assert_eq!(slow_one(&mut connection).await, Ok(1), "{url}, {round}");
            token.cancel().await.unwrap();
        }
        assert_eq!(counted(&neon, &url, before).cancels, 0);
    }
}

#[tokio::test]
async fn a_server_that_ignores_a_cancel_request_is_not_waited_for_for_ever() {
    let neon = start().await;
    let mut front = Front::start(&neon.postgres_url(), Closes::Never).await;
    let separator = if front.url.contains('?') { '&' } else { '?' };
    let connection = connect(&format!("{}{separator}connect_timeout=5", front.url)).await;
    let token = connection.cancel_token();
    let mut shared = &connection;
    let mut slow = Box::pin(shared.batch_execute("SELECT pg_sleep(60)"));
    assert!(poll_immediate(&mut slow).await.is_none());
    until(&neon, RUNNING, "1").await;
    let cancelled = timeout(HANG, token.cancel()).await.expect("no hang");
    assert_eq!(cancelled.unwrap_err().kind(), ConnectErrorKind::TimedOut);
    front.asked().await;
}

#[tokio::test]
async fn the_next_statement_waits_until_the_cancelled_one_is_answered() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    let connection = connect(&front.url).await;
    let token = connection.cancel_token();
    for round in 0..5 {
        let mut shared = &connection;
        let mut slow = Box::pin(shared.batch_execute("SELECT pg_sleep(60)"));
        assert!(poll_immediate(&mut slow).await.is_none());
        until(&neon, RUNNING, "1").await;
        token.cancel().await.unwrap();
        front.asked().await;
        let mut next = Box::pin(async {
            let mut shared = &connection;
            shared.batch_execute("SELECT pg_sleep(0.1)").await
        });
        assert!(poll_immediate(&mut next).await.is_none());
        front.pass_on().await;
        let (slow, next) = timeout(HANG, join(slow, next)).await.expect("no hang");
        assert_eq!(slow.unwrap_err().sqlstate(), Some("57014"), "{round}");
        // The request has had its effect: the connection is as good as before.
        assert_eq!(next, Ok(()), "{round}");
    }
}

#[tokio::test]
async fn a_request_that_may_still_be_under_way_costs_the_connection_and_no_statement() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    let pool = pool(&front.url, |policy| policy.max_size(1));
    for round in 0..3 {
        let mut connection = pool.get().await.unwrap();
        let token = connection.cancel_token();
        let gate = Gate::hold(&neon).await;
        let shared = &*connection;
        let mut slow = Box::pin(async {
            let mut shared = shared;
            shared
                .batch_execute("SELECT pg_advisory_xact_lock(7)")
                .await
        });
        assert!(poll_immediate(&mut slow).await.is_none());
        token.cancel().await.unwrap();
        front.asked().await;
        // The statement ends before the request is passed on.
        gate.open().await;
        assert_eq!(slow.await, Ok(()), "{round}");
        let refused = connection.batch_execute("SELECT pg_sleep(0.3)").await;
        let refused = refused.unwrap_err();
        assert!(refused.is_connection_lost() && refused.is_transient());
        assert!(refused.to_string().contains("cancel"), "{refused}");
        drop(connection);
        let mut connection = pool.get().await.unwrap();
        let (next, ()) = join(slow_one(&mut connection), front.pass_on()).await;
        assert_eq!(next, Ok(1), "{round}");
    }
}

#[tokio::test]
async fn statements_already_sent_may_be_cancelled_in_its_place_and_the_session_knows() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    let connection = connect(&front.url).await;
    let token = connection.cancel_token();
    let run = async |sql: &str| {
        let mut shared = &connection;
        shared.batch_execute(sql).await
    };
    let cancel = async {
        sleep(Duration::from_millis(50)).await;
        token.cancel().await.unwrap();
        until(&neon, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid() AND state = 'active'", "1").await;
        front.pass_on().await;
    };
    let both = join(run("SELECT pg_sleep(0.3)"), run("SELECT pg_sleep(60)"));
    let ((first, second), ()) = timeout(HANG, join(both, cancel)).await.expect("no hang");
    assert_eq!(first, Ok(()));
    assert_eq!(second.unwrap_err().sqlstate(), Some("57014"));
    assert_eq!(run("SELECT 1").await, Ok(()));
}

#[tokio::test]
async fn a_timeout_of_the_servers_own_is_not_taken_for_the_request() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    let mut connection = connect(&front.url).await;
    let token = connection.cancel_token();
    let gate = Gate::hold(&neon).await;
    // The request is under way before the time begins.
    let slow = connection.batch_execute(
        "SELECT pg_advisory_lock(7); SET statement_timeout = '200ms'; SELECT pg_sleep(60)",
    );
    let (slow, ()) = join(slow, async {
        until(&neon, WAITING, "1").await;
        token.cancel().await.unwrap();
        gate.open().await;
    })
    .await;
    assert_eq!(slow.unwrap_err().sqlstate(), Some("57014"));
    let next = connection.batch_execute("SELECT 1").await;
    assert!(next.unwrap_err().is_connection_lost());
    front.pass_on().await;
}

#[tokio::test]
async fn behind_a_pooler_the_socket_stays_open_until_a_late_request_has_done_its_work() {
    let neon = start().await;
    let mut front = Front::new(&neon.pgbouncer_url()).await;
    let mut connection = connect(&front.url).await;
    let slow = connection.batch_execute("SELECT pg_sleep(600)");
    let mut slow = Box::pin(slow);
    assert!(poll_immediate(&mut slow).await.is_none());
    until(&neon, RUNNING, "1").await;
    drop(slow);
    drop(connection);
    front.asked().await;
    sleep(Duration::from_secs(1)).await;
    front.let_through.add_permits(1000);
    until(&neon, RUNNING, "0").await;
}

#[tokio::test]
async fn a_statement_sent_while_a_request_for_another_is_dialled_is_not_stopped() {
    let neon = start().await;
    for url in [neon.postgres_url(), neon.url(), neon.pooled_url()] {
        let mut connection = connect(&url).await;
        connection.batch_execute("SELECT 1").await.unwrap();
        let token = connection.cancel_token();
        let mut cancel = Box::pin(token.cancel());
        let mut meant = Box::pin(connection.batch_execute("SELECT pg_sleep(0.05)"));
        assert!(poll_immediate(&mut meant).await.is_none());
        assert!(poll_immediate(&mut cancel).await.is_none());
        assert_eq!(meant.await, Ok(()), "{url}");
        let (next, cancelled) = join(slow_one(&mut connection), cancel).await;
        cancelled.unwrap();
        assert_eq!(next, Ok(1), "{url}");
    }
}

#[tokio::test]
async fn a_token_stops_nothing_of_the_next_holder_of_the_connection() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, |policy| policy.max_size(1));
        let connection = pool.get().await.unwrap();
        let stale = connection.cancel_token();
        drop(connection);
        let mut connection = pool.get().await.unwrap();
        let token = connection.cancel_token();
        for (token, stops) in [(stale, false), (token, true)] {
            let gate = Gate::hold(&neon).await;
            let slow = connection.batch_execute("SELECT pg_advisory_xact_lock(7)");
            let (slow, ()) = join(timeout(HANG, slow), async {
                until(&neon, WAITING, "1").await;
                token.cancel().await.unwrap();
                if stops {
                    until(&neon, WAITING, "0").await;
                }
                gate.open().await;
            })
            .await;
            assert_eq!(slow.expect("no hang").is_err(), stops, "{url}");
        }
    }
}

/// Stops a connection's first statement while the question in front of it, whether statements may have names, waits for a
/// lock; `meanwhile` runs until the statement has ended.
async fn stopped_in_front(
    neon: &NeonSim,
    connection: &mut Connection,
    meanwhile: impl Future<Output = ()>,
) -> diesel::result::Error {
    let token = connection.cancel_token();
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
         AND relation = 'pg_prepared_statements'::regclass";
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    // The table stays locked until the gate opens.
    let mut gate = connect(&neon.postgres_url()).await;
    gate.batch_execute("SELECT pg_advisory_lock(7)")
        .await
        .unwrap();
    let lock = "BEGIN; LOCK TABLE pg_catalog.pg_prepared_statements; \
         SELECT pg_advisory_xact_lock(7); COMMIT";
    let stopped = async {
        until(neon, locked, "1").await;
        let slow = sql_query("SELECT pg_sleep(600)").execute(connection);
        let slow = async {
            let mut slow = pin!(timeout(HANG, slow));
            tokio::select! {
                slow = &mut slow => slow,
                () = meanwhile => slow.await,
            }
        };
        let (slow, cancelled) = join(slow, async {
            // The one for the gate, the other for the table.
            until(neon, waiting, "2").await;
            token.cancel().await
        })
        .await;
        gate.batch_execute("SELECT pg_advisory_unlock(7)")
            .await
            .unwrap();
        cancelled.unwrap();
        slow.expect("no hang").unwrap_err()
    };
    let (held, stopped) = join(neon.sql(lock), stopped).await;
    held.unwrap();
    stopped
}

#[tokio::test]
async fn a_request_that_hits_the_question_in_front_stops_the_statement_and_settles_nothing() {
    let neon = start().await;
    for url in [neon.postgres_url(), neon.pgbouncer_url()] {
        let settles_nothing = async || {
            let mut connection = connect(&url).await;
            let stopped = stopped_in_front(&neon, &mut connection, async {}).await;
            assert_eq!(stopped.sqlstate(), Some("57014"), "{url}");
            // It is asked again, and the answer is the server's.
            let one = async |connection: &mut Connection| {
                let one = diesel::select(1.into_sql::<Integer>());
                one.get_result::<i32>(connection).await
            };
            if one(&mut connection)
                .await
                .is_err_and(|error| error.is_connection_lost())
            {
                return false;
            }
            for _ in 0..3 {
                assert_eq!(one(&mut connection).await, Ok(1), "{url}");
            }
            let names = common::prepared(&mut connection).await;
            let are_named = names.iter().any(|name| name.contains("$1"));
            assert_eq!(are_named, url == neon.postgres_url(), "{url}: {names:?}");
            true
        };
        // A request that overtakes the statement is repeated, and costs the connection.
        let mut tries = 0;
        while !settles_nothing().await {
            tries += 1;
            assert!(tries < 10, "{url}");
        }
    }
}

#[tokio::test]
async fn a_request_that_comes_between_two_statements_is_made_again() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    let mut is_lost = false;
    for _ in 0..20 {
        let mut connection = connect(&front.url).await;
        let requests = async {
            front.asked().await;
            front.pass_on().await;
            front.asked().await;
            front.lose().await;
            is_lost = true;
            front.let_through.add_permits(1000);
        };
        let stopped = stopped_in_front(&neon, &mut connection, requests).await;
        assert_eq!(stopped.sqlstate(), Some("57014"));
        if is_lost {
            return;
        }
        // The server signals a process twice; here the second signal has stopped the statement.
    }
    panic!("no request was lost");
}

/// PostgreSQL signals the process once more when the statement may have ended already.
#[tokio::test]
async fn nothing_is_sent_until_the_server_is_done_with_the_request() {
    let neon = start().await;
    let front = Front::start(&neon.postgres_url(), Closes::Last).await;
    let mut connection = connect(&front.url).await;
    let token = connection.cancel_token();
    let slow = connection.batch_execute("SELECT pg_sleep(600)");
    let (running, request) = (until(&neon, RUNNING, "1"), OnceCell::new());
    let (slow, ()) = join(timeout(HANG, slow), async {
        running.await;
        let _ = request.set(tokio::spawn(async move { token.cancel().await }));
    })
    .await;
    let request = request.into_inner().expect("it was made");
    let stopped = slow.expect("no hang").unwrap_err();
    assert_eq!(stopped.sqlstate(), Some("57014"));
    let one = diesel::select(1.into_sql::<Integer>());
    let mut next = Box::pin(one.get_result::<i32>(&mut connection));
    let early = timeout(Duration::from_millis(300), &mut next).await;
    assert!(early.is_err(), "{early:?}");
    assert!(!request.is_finished());
    front.let_through.add_permits(1);
    assert_eq!(timeout(HANG, next).await.expect("no hang"), Ok(1));
    request.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_statement_that_is_held_back_is_no_aim_of_a_second_request() {
    let neon = start().await;
    let mut front = Front::start(&neon.pgbouncer_url(), Closes::Last).await;
    let connection = connect(&front.url).await;
    let (mut first, mut second) = (&connection, &connection);
    first.batch_execute("SELECT 1").await.unwrap();
    let token = connection.cancel_token();
    let mut slow = Box::pin(first.batch_execute("SELECT pg_sleep(600)"));
    assert!(poll_immediate(&mut slow).await.is_none());
    until(&neon, RUNNING, "1").await;
    // The pooler tracks no names, so this one waits for the one in front.
    let mut next = Box::pin(second.batch_execute("SELECT 2"));
    assert!(poll_immediate(&mut next).await.is_none());
    let request = tokio::spawn({
        let token = token.clone();
        async move { token.cancel().await }
    });
    front.asked().await;
    let stopped = timeout(HANG, slow).await.expect("no hang").unwrap_err();
    assert_eq!(stopped.sqlstate(), Some("57014"));
    let again = timeout(HANG, token.cancel()).await.expect("no hang");
    again.unwrap();
    front.let_through.add_permits(1000);
    assert_eq!(timeout(HANG, next).await.expect("no hang"), Ok(()));
    request.await.unwrap().unwrap();
}
