//! Connections that an `HttpConnection` keeps: one that has gone silent is given up, and futures that nobody polls are in nobody's way.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::scripted::listen;
use common::{HANG, RUNNING, connect, neon, over_https, until};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::DatabaseErrorExt;
use diesel_neon::http::HttpConnection;
use futures_util::future::join_all;
use futures_util::poll;
use neon_sim::NeonSim;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;

/// A way to the stand-in that can go silent, as a network does that forgets its connections.
struct Way {
    port: u16,
    silenced: watch::Sender<()>,
    connections: Arc<AtomicUsize>,
}

impl Way {
    async fn to(neon: &NeonSim) -> Self {
        let target = neon.https_port();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silenced, told) = watch::channel(());
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let mut told = told.clone();
                told.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = told.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self {
            port,
            silenced,
            connections,
        }
    }

    fn url(&self, neon: &NeonSim) -> String {
        let [near, far] = [self.port, neon.https_port()].map(|port| format!("https_port={port}"));
        over_https(neon, neon.url()).replace(&far, &near)
    }

    /// Nothing goes over the connections of now any more.
    fn silence(&self) {
        self.silenced.send_replace(());
    }

    fn connections(&self) -> usize {
        AtomicUsize::load(&self.connections, Ordering::Relaxed)
    }
}

async fn seven(mut connection: &HttpConnection) -> Result<i32, Error> {
    let select = diesel::select(7.into_sql::<Integer>());
    let answer = select.get_result::<i32>(&mut connection);
    timeout(HANG, answer).await.expect("no hang")
}

#[tokio::test]
async fn a_connection_that_has_gone_silent_is_given_up_with_its_first_late_request() {
    let neon = neon().await;
    let way = Way::to(&neon).await;
    let connection = HttpConnection::builder(way.url(&neon))
        .request_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    way.silence();
    let error = seven(&connection).await.unwrap_err();
    assert!(error.is_response_timeout(), "{error:?}");
    assert_eq!(seven(&connection).await, Ok(7));

    assert_eq!(way.connections(), 2);

    // The same if the caller has less patience.
    let connection = HttpConnection::new(way.url(&neon)).unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    way.silence();
    let given_up = timeout(Duration::from_secs(5), seven(&connection)).await;
    given_up.unwrap_err();
    assert_eq!(seven(&connection).await, Ok(7));
    assert_eq!(way.connections(), 4);
}

#[tokio::test]
async fn what_waits_for_a_connection_that_has_gone_silent_takes_another() {
    let neon = neon().await;
    let way = Way::to(&neon).await;
    let limit = Duration::from_secs(12);
    let connection = HttpConnection::builder(way.url(&neon))
        .request_timeout(limit)
        .build()
        .unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    way.silence();
    // As many as one connection takes.
    let lost = join_all((0..100).map(|_| seven(&connection)));
    let waiting = async {
        tokio::time::sleep(limit / 2).await;
        seven(&connection).await
    };
    let (lost, waiting) = tokio::join!(lost, waiting);
    assert!(lost.iter().all(Result::is_err), "{lost:?}");
    assert_eq!(waiting, Ok(7));
    assert_eq!(way.connections(), 2);
}

#[tokio::test]
async fn a_request_that_is_late_is_given_up() {
    let neon = neon().await;
    let connection = HttpConnection::builder(over_https(&neon, neon.url()))
        .request_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    let sleep = sql_query("SELECT pg_sleep(600)");
    let slept = timeout(HANG, sleep.execute(&mut &connection)).await;
    let error = slept.expect("no hang").unwrap_err();
    assert!(
        error.is_response_timeout() && error.is_connection_lost(),
        "{error:?}"
    );
    assert!(
        !error.is_undelivered() && error.to_string().contains("may have run"),
        "{error}"
    );
    until(&neon, RUNNING, "0").await;
}

#[tokio::test]
async fn a_request_that_is_late_alone_costs_no_connection() {
    let neon = neon().await;
    let way = Way::to(&neon).await;
    let connection = HttpConnection::new(way.url(&neon)).unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    let sleeping = async {
        let mut shared = &connection;
        sql_query("SELECT pg_sleep(600)").execute(&mut shared).await
    };
    let mut sleeping = Box::pin(sleeping);
    assert!(poll!(&mut sleeping).is_pending());
    // The connection answers others meanwhile.
    let wait = timeout(Duration::from_millis(1500), &mut sleeping);
    let others = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        seven(&connection).await
    };
    let (late, seven_of_others) = tokio::join!(wait, others);
    assert!(late.is_err());
    assert_eq!(seven_of_others, Ok(7));
    drop(sleeping);
    assert_eq!(seven(&connection).await, Ok(7));
    assert_eq!(way.connections(), 1);
}

const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

/// A server ends a connection on which too many requests are taken back before it has looked at them. How many those are, is up
/// to the machine: most rounds count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_that_are_dropped_together_end_no_statement_of_others() {
    const ROUNDS: usize = 6;
    let neon = neon().await;
    let connection = HttpConnection::new(over_https(&neon, neon.url())).unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    let mut gate = connect(&neon.url()).await;
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let close = gate.batch_execute("SELECT pg_advisory_lock(7)");
        timeout(HANG, close).await.expect("no hang").unwrap();
        let other = connection.clone();
        let mut slow = tokio::spawn(async move {
            let wait = sql_query("SELECT pg_advisory_xact_lock(7)");
            wait.execute(&mut &other).await
        });
        let is_waiting = tokio::select! {
            () = until(&neon, WAITING, "1") => true,
            _ = &mut slow => false,
        };
        if is_waiting {
            let mut dropped: Vec<_> = (0..300).map(|_| Box::pin(seven(&connection))).collect();
            for statement in &mut dropped {
                let _ = poll!(statement);
            }
            drop(dropped);
            // What is dropped rests before it is taken back.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let open = gate.batch_execute("SELECT pg_advisory_unlock(7)");
        timeout(HANG, open).await.expect("no hang").unwrap();
        let is_answered =
            is_waiting && timeout(HANG, slow).await.expect("no hang").unwrap().is_ok();
        ended += usize::from(!is_answered);
    }
    assert!(ended <= ROUNDS / 3, "{ended}");
}

#[tokio::test]
async fn futures_that_nobody_polls_are_in_nobodys_way() {
    let neon = neon().await;
    let connection = HttpConnection::new(over_https(&neon, neon.url())).unwrap();
    assert_eq!(seven(&connection).await, Ok(7));
    let large = || async {
        let mut shared = &connection;
        let rows =
            sql_query("SELECT repeat('x', 1500000) AS name, 1 AS id FROM generate_series(1, 3)");
        rows.load::<Named>(&mut shared).await.map(|rows| rows.len())
    };
    let mut unpolled: Vec<_> = (0..4).map(|_| Box::pin(large())).collect();
    for load in &mut unpolled {
        assert!(poll!(load).is_pending());
    }
    // Their answers arrive meanwhile.
    for _ in 0..40 {
        let seven = timeout(Duration::from_secs(10), seven(&connection)).await;
        assert_eq!(seven.expect("others do not wait"), Ok(7));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    for load in unpolled {
        assert_eq!(timeout(HANG, load).await.expect("no hang"), Ok(3));
    }
}

#[derive(QueryableByName, Debug)]
#[allow(dead_code)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Integer)]
    id: i32,
}

/// A runtime that nobody drives, in the middle of a connect, holds up no other.
#[test]
fn a_runtime_that_rests_holds_up_no_other() {
    let driven = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (resting, running) = (driven(), driven());
    let servers = tokio::runtime::Runtime::new().unwrap();
    let connects = Arc::<AtomicUsize>::default();
    let (neon, url) = servers.block_on(async {
        let neon = neon().await;
        let (port, counter) = (neon.https_port(), Arc::clone(&connects));
        // No answer to the first TLS handshake.
        let way = listen(move |mut near| {
            let is_first = counter.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if is_first {
                    std::future::pending::<()>().await;
                }
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
        let [near, far] = [way.await, port].map(|port| format!("https_port={port}"));
        let url = over_https(&neon, neon.url()).replace(&far, &near);
        (neon, url)
    });
    let connection = HttpConnection::new(url).unwrap();
    let mut begun = Box::pin(seven(&connection));
    resting.block_on(async {
        let connecting = async {
            while AtomicUsize::load(&connects, Ordering::Relaxed) == 0 {
                assert!(poll!(&mut begun).is_pending());
                yield_now().await;
            }
        };
        timeout(HANG, connecting).await.expect("no hang");
    });
    running.block_on(async {
        let seven = timeout(Duration::from_secs(20), seven(&connection)).await;
        assert_eq!(seven.expect("it waits for no other runtime"), Ok(7));
    });
    drop(begun);
    drop(resting);
    servers.block_on(async { drop(neon) });
}
