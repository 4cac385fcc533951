//! Every task is woken, whichever other task reads the stream.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use common::{HANG, RUNNING, connect, routes, start, until};
use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::poll_immediate;
use tokio::runtime::Builder;
use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

/// Uses up the task's budget, so that it has to yield.
async fn exhaust() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    (0..1000).for_each(|n| sender.send(n).unwrap());
    poll_fn(|cx| {
        // One more would have the task woken.
        while has_budget_remaining() {
            assert!(receiver.poll_recv(cx).is_ready());
        }
        Poll::Ready(())
    })
    .await;
}

#[test]
fn a_statement_that_has_to_give_way_at_once_is_woken_again() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Only outside of its workers does such a runtime wake a task that yields at once. No timeout is around
        // it, which would wake the task as well.
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let neon = start().await;
            for (route, url) in routes(&neon) {
                let mut connection = connect(&url).await;
                for _ in 0..3 {
                    exhaust().await;
                    let done = sql_query("SELECT 1").execute(&mut connection).await;
                    assert_eq!(done, Ok(1), "{route}");
                }
            }
        });
        done.send(()).unwrap();
    });
    ended.recv_timeout(HANG).expect("no hang");
}

#[tokio::test]
async fn a_large_copy_goes_on_when_the_stream_takes_more() {
    let neon = start().await;
    neon.sql("CREATE TABLE lines (line TEXT); GRANT ALL ON lines TO PUBLIC")
        .await
        .unwrap();
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let lines = line.repeat(150);
    for (route, url) in routes(&neon) {
        let connection = &mut connect(&url).await;
        let copied = async {
            let mut copy = connection.copy_in("COPY lines FROM STDIN").await?;
            for _ in 0..200 {
                copy.send(&lines).await?;
            }
            copy.finish().await
        };
        let copied = timeout(HANG, copied).await.expect("no hang");
        assert_eq!(copied, Ok(200 * 150), "{route}");
        neon.sql("TRUNCATE lines").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_given_up_is_cancelled_once_the_answer_in_front_of_it_is_there() {
    let neon = start().await;
    for (route, url) in routes(&neon) {
        let connection = Arc::new(connect(&url).await);
        // The statement in front waits until the gate opens.
        let mut gate = connect(&neon.postgres_url()).await;
        gate.batch_execute("SELECT pg_advisory_lock(7)")
            .await
            .unwrap();
        let front = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move {
                let mut connection = &*connection;
                let front = "SELECT pg_advisory_xact_lock(7) /* for RUNNING: pg_sleep */";
                sql_query(front).execute(&mut connection).await
            }
        });
        until(&neon, RUNNING, "1").await;
        {
            let mut connection = &*connection;
            let given_up = sql_query("SELECT pg_sleep(600), $1")
                .bind::<Text, _>("")
                .execute(&mut connection);
            let mut given_up = Box::pin(given_up);
            assert!(poll_immediate(&mut given_up).await.is_none());
        }
        gate.batch_execute("SELECT pg_advisory_unlock(7)")
            .await
            .unwrap();
        assert_eq!(front.await.unwrap(), Ok(1), "{route}");
        // No caller uses the connection any more.
        until(&neon, RUNNING, "0").await;
        let next = (&*connection).batch_execute("SELECT 1").await;
        assert!(next.is_err(), "{route}");
    }
}
