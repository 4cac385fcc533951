//! Requests over HTTPS that are given up: what an error says of them holds, and they are in nobody's way.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;
#[path = "http/scripted.rs"]
mod scripted;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::HANG;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl;
use diesel_neon::DatabaseErrorExt;
use diesel_neon::http::HttpConnection;
use futures_util::poll;
use scripted::{Reply, SEVEN, Seen, ok, read, serve};
use tokio::task::block_in_place;
use tokio::time::timeout;
use tracing::Instrument;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

async fn seven(mut connection: &HttpConnection) -> Result<i32, Error> {
    let select = diesel::select(7.into_sql::<Integer>());
    let answer = select.get_result::<i32>(&mut connection);
    timeout(HANG, answer).await.expect("no hang")
}

fn wait_until(is_done: impl Fn() -> bool, most: Duration) {
    let began = Instant::now();
    while !is_done() && began.elapsed() < most {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Holds the poll in which a request's task is about to send it, until the statement was given up; then gives the server time to see
/// the request.
struct Held {
    seen: Arc<Seen>,
    caller: ThreadId,
    polls: AtomicUsize,
    is_given_up: Arc<AtomicBool>,
    has_ended: mpsc::Sender<()>,
}

/// The task looks at a connection that has rested in three polls before.
const SENDING: usize = 4;

impl Layer<Registry> for Held {
    fn on_enter(&self, _: &tracing::Id, _: Context<'_, Registry>) {
        if thread::current().id() == self.caller {
            return;
        }
        if self.polls.fetch_add(1, Ordering::Relaxed) + 1 == SENDING {
            let is_given_up = || AtomicBool::load(&self.is_given_up, Ordering::Relaxed);
            // Other workers drive the connection meanwhile.
            block_in_place(|| wait_until(is_given_up, HANG));
        }
    }

    fn on_exit(&self, _: &tracing::Id, _: Context<'_, Registry>) {
        let is_task = thread::current().id() != self.caller;
        if is_task && read(&self.polls) == SENDING {
            wait_until(|| read(&self.seen.requests) > 1, Duration::from_secs(1));
            let _ = self.has_ended.send(());
        }
    }
}

#[test]
fn a_statement_that_was_not_sent_by_its_error_is_not_sent_later() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    let (url, seen) = servers.block_on(serve(|_| ok(SEVEN)));
    let is_given_up = Arc::<AtomicBool>::default();
    let (has_ended, ended) = mpsc::channel();
    let held = Held {
        seen: Arc::clone(&seen),
        caller: thread::current().id(),
        polls: AtomicUsize::new(0),
        is_given_up: Arc::clone(&is_given_up),
        has_ended,
    };
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(held));
    let mut clients = tokio::runtime::Builder::new_multi_thread();
    let clients = clients.worker_threads(4).enable_all().build().unwrap();
    let error = clients.block_on(async {
        let connection = HttpConnection::builder(url)
            .request_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        assert_eq!(seven(&connection).await, Ok(7));
        // Long enough for the connection to have rested.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let late = seven(&connection).instrument(tracing::info_span!("statement"));
        late.await.unwrap_err()
    });
    is_given_up.store(true, Ordering::Relaxed);
    assert!(error.is_undelivered(), "{error}");
    ended.recv_timeout(HANG).expect("the task was held");
    assert_eq!(read(&seen.requests), 1);
}

#[tokio::test]
async fn what_nobody_polls_holds_no_place_beyond_its_time() {
    let (url, seen) = serve(|number| if number < 6 { Reply::Hang } else { ok(SEVEN) }).await;
    let connection = HttpConnection::builder(url)
        .request_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut unpolled: Vec<_> = (0..6).map(|_| Box::pin(seven(&connection))).collect();
    for statement in &mut unpolled {
        assert!(poll!(statement).is_pending());
    }
    let all_sent = async {
        while read(&seen.requests) < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANG, all_sent).await.expect("no hang");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(seven(&connection).await, Ok(7));
    for statement in unpolled {
        let error = statement.await.unwrap_err();
        assert!(error.is_response_timeout(), "{error}");
    }
}
