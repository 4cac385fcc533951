//! Servers and proxies that break off, or that leave messages out.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::log::Log;
use common::scripted::{self, complete, error, message, ready, tag};
use common::{HANG, connect, pool};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::Integer;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseErrorExt, NamedStatements, PooledConnection, RetryError};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

async fn in_transaction(connection: &mut Connection) -> Result<usize, Error> {
    let insert = connection.transaction(async |connection| {
        sql_query("INSERT INTO books VALUES (1)")
            .execute(connection)
            .await
    });
    timeout(HANG, insert).await.expect("no hang")
}

#[tokio::test]
async fn an_answer_that_does_not_say_how_a_statement_went_is_no_success() {
    let (url, _server) = scripted::start(async |mut session, _| {
        while session.asked().await.is_some() {
            let mut bare = message(tag::PARSE_COMPLETE, &[]);
            bare.extend(message(tag::BIND_COMPLETE, &[]));
            bare.extend(message(tag::NO_DATA, &[]));
            bare.extend(ready(tag::status::IDLE));
            session.say(&bare).await;
        }
    })
    .await;
    for batch in [false, true] {
        let mut connection = connect(&url).await;
        let insert = "INSERT INTO books VALUES (1)";
        let inserted = match batch {
            true => connection.batch_execute(insert).await,
            false => sql_query(insert).execute(&mut connection).await.map(drop),
        };
        let broken = inserted.unwrap_err();
        assert_eq!(broken.sqlstate(), Some("08P01"), "{broken}");
        assert!(broken.is_connection_lost(), "{broken:?}");
        let next = connection.batch_execute("SELECT 1").await.unwrap_err();
        assert!(next.is_connection_lost(), "{next:?}");
    }
}

/// Returns what has arrived. Loopback delivers what is written at once.
fn arrived(server: &mut std::net::TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    match server.read(&mut bytes) {
        Ok(len) => bytes[..len].to_vec(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Returns a connection, and the server's end of it.
async fn with_server(names: NamedStatements) -> (PooledConnection<'static>, std::net::TcpStream) {
    let (accepted, mut sockets) = mpsc::channel(1);
    let port = scripted::listen(move |mut stream| {
        let accepted = accepted.clone();
        async move {
            scripted::startup(&mut stream).await.unwrap();
            stream.write_all(&scripted::greeting()).await.unwrap();
            accepted.send(stream).await.unwrap();
        }
    })
    .await;
    let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let pool = pool(&url, |policy| policy.named_statements(names));
    let pooled = timeout(HANG, pool.get_owned()).await.unwrap().unwrap();
    let mut server = sockets.recv().await.unwrap().into_std().unwrap();
    arrived(&mut server);
    (pooled, server)
}

#[tokio::test]
async fn statements_behind_two_others_are_written_at_once() {
    let (pooled, mut server) = with_server(NamedStatements::Always).await;
    let connection: &Connection = &pooled;
    let statement = |n: usize| {
        let sql = format!("SELECT {n}");
        async move { (&mut &*connection).batch_execute(&sql).await }
    };
    let mut statements: Vec<_> = (0..6).map(|n| Box::pin(statement(n))).collect();
    let query = |n: usize| message(b'Q', format!("SELECT {n}\0").as_bytes());
    // With two under way, more may be coming.
    for (n, written) in [(0, query(0)), (1, query(1)), (2, vec![]), (3, vec![])] {
        assert!(poll!(&mut statements[n]).is_pending());
        assert_eq!(arrived(&mut server), written, "statement {n}");
    }
    assert!(poll!(&mut statements[2]).is_pending());
    assert_eq!(arrived(&mut server), [query(2), query(3)].concat());
    // Whoever goes away meanwhile keeps nobody from being served.
    for n in [4, 5] {
        assert!(poll!(&mut statements[n]).is_pending());
        assert_eq!(arrived(&mut server), b"", "statement {n}");
    }
    drop(statements.remove(4));
    assert_eq!(arrived(&mut server), [query(4), query(5)].concat());
}

#[tokio::test]
async fn what_has_arrived_before_a_statement_was_sent_is_no_answer_to_it() {
    let (pooled, mut server) = with_server(NamedStatements::Never).await;
    let connection: &Connection = &pooled;
    let (mut first, mut second) = (connection, connection);
    let mut first = Box::pin(first.batch_execute("SELECT 1"));
    let mut second = Box::pin(second.batch_execute("SELECT 2"));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    assert_eq!(arrived(&mut server), message(b'Q', b"SELECT 1\0"));
    let answer = [complete("SELECT 1"), ready(b'I')].concat();
    server.write_all(&[&answer[..], &answer].concat()).unwrap();
    assert_eq!(timeout(HANG, first).await.expect("no hang"), Ok(()));
    let second = timeout(HANG, second).await.expect("no hang");
    assert!(second.unwrap_err().is_connection_lost());
}

#[tokio::test]
async fn statements_behind_two_others_end_the_turn_of_no_set_of_futures() {
    let (pooled, mut server) = with_server(NamedStatements::Always).await;
    let connection: &Connection = &pooled;
    let statement = async |n: usize| {
        let sql = format!("SELECT {n}");
        (&mut &*connection).batch_execute(&sql).await
    };
    let mut statements: FuturesUnordered<_> = (0..100).map(statement).collect();
    // It ends its turn once two of its futures have woken themselves.
    assert!(poll!(statements.next()).is_pending());
    assert!(poll!(statements.next()).is_pending());
    let all = (0..100).map(|n| message(b'Q', format!("SELECT {n}\0").as_bytes()));
    assert!(arrived(&mut server) == all.collect::<Vec<_>>().concat());
}

/// Counts how often a future is woken.
struct Counting(Waker, Arc<AtomicU32>);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.wake_by_ref();
    }
}

#[tokio::test]
async fn each_of_many_statements_is_woken_a_few_times() {
    let (pooled, mut server) = with_server(NamedStatements::Always).await;
    let connection: &Connection = &pooled;
    let wakes = Arc::new(AtomicU32::new(0));
    let statement = |n: usize| {
        let wakes = Arc::clone(&wakes);
        async move {
            let sql = format!("SELECT {n}");
            let mut connection = connection;
            let mut running = pin!(connection.batch_execute(&sql));
            poll_fn(|cx| {
                let counting = Arc::new(Counting(cx.waker().clone(), Arc::clone(&wakes)));
                let waker = Waker::from(counting);
                running.as_mut().poll(&mut Context::from_waker(&waker))
            })
            .await
        }
    };
    let mut statements: FuturesUnordered<_> = (0..100).map(statement).collect();
    assert!(poll!(statements.next()).is_pending());
    assert!(poll!(statements.next()).is_pending());
    assert_ne!(arrived(&mut server), b"");
    let answer = [complete("SELECT 0"), ready(b'I')].concat();
    server.write_all(&answer.repeat(100)).unwrap();
    let done: Vec<_> = timeout(HANG, statements.collect()).await.unwrap();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    // If each read its own answer alone, it would wake all others.
    let wakes = AtomicU32::load(&wakes, Ordering::Relaxed);
    assert!(wakes < 1000, "{wakes} wakes");
}

#[tokio::test]
async fn an_answer_that_another_statement_has_read_is_not_held_back() {
    let (pooled, mut server) = with_server(NamedStatements::Detect).await;
    let connection: &Connection = &pooled;
    let statement = |sql: &'static str| async move { (&mut &*connection).batch_execute(sql).await };
    let mut check = Box::pin(statement(""));
    let mut probing = Box::pin(statement("SELECT 1"));
    let (mut slow, mut slower) = (
        Box::pin(statement("SELECT 2")),
        Box::pin(statement("SELECT 3")),
    );
    for _ in 0..2 {
        for statement in [&mut check, &mut probing] {
            assert!(poll!(statement).is_pending());
        }
        for statement in [&mut slow, &mut slower] {
            assert!(poll!(statement).is_pending());
        }
    }
    // The check, the probe and the statement behind it are answered.
    let empty = message(tag::EMPTY_QUERY_RESPONSE, b"");
    let done = [complete("SELECT 0"), ready(b'I')].concat();
    let answers = [empty, ready(b'I'), done.clone(), done].concat();
    server.write_all(&answers).unwrap();
    timeout(HANG, check).await.unwrap().unwrap();
    assert!(poll!(&mut slow).is_pending());
    // Another statement waits to be written.
    let mut next = Box::pin(statement("SELECT 4"));
    assert!(poll!(&mut next).is_pending());
    assert!(poll!(&mut probing).is_ready());
}

#[tokio::test]
async fn sql_that_was_cancelled_in_front_of_its_begin_is_not_run() {
    let (url, _server) = scripted::start(|mut session, _| async move {
        let mut is_cancelled = false;
        while let Some(sql) = session.asked().await {
            let answer = match &*sql {
                _ if !std::mem::replace(&mut is_cancelled, true) => {
                    let words = "canceling statement due to user request";
                    [error("ERROR", "57014", words), ready(b'I')].concat()
                }
                "" => {
                    let empty = message(tag::EMPTY_QUERY_RESPONSE, b"");
                    [complete("BEGIN"), empty, ready(b'T')].concat()
                }
                "COMMIT" | "ROLLBACK" => [complete(&sql), ready(b'I')].concat(),
                _ => [complete("SELECT 1"), ready(b'T')].concat(),
            };
            session.say(&answer).await;
        }
    })
    .await;
    let pool = pool(&url, |policy| {
        policy.named_statements(NamedStatements::Never)
    });
    let connection = &mut *pool.get().await.unwrap();
    let done =
        connection.transaction(async |connection| connection.batch_execute("SELECT 1").await);
    let error = timeout(HANG, done).await.unwrap().unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
}

/// Serves a transaction of one INSERT, and answers its COMMIT with `at_commit`.
async fn with_commit(at_commit: Vec<u8>) -> (String, impl Sized) {
    scripted::start(move |mut session, _| {
        let at_commit = at_commit.clone();
        async move {
            while let Some(sql) = session.asked().await {
                match &*sql {
                    "COMMIT" => {
                        session.say(&at_commit).await;
                        return;
                    }
                    "" => {
                        session
                            .say(
                                &[
                                    message(tag::EMPTY_QUERY_RESPONSE, &[]),
                                    ready(tag::status::IDLE),
                                ]
                                .concat(),
                            )
                            .await
                    }
                    _ => {
                        let mut inserted = Vec::new();
                        for tag in [tag::PARSE_COMPLETE, tag::BIND_COMPLETE] {
                            inserted.extend(message(tag, &[]));
                        }
                        inserted.extend(complete("BEGIN"));
                        for tag in [tag::PARSE_COMPLETE, tag::BIND_COMPLETE, tag::NO_DATA] {
                            inserted.extend(message(tag, &[]));
                        }
                        inserted.extend(complete("INSERT 0 1"));
                        inserted.extend(ready(tag::status::IN_TRANSACTION));
                        session.say(&inserted).await;
                    }
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_commit_without_its_command_complete_is_none() {
    let (url, _server) = with_commit(ready(tag::status::IDLE)).await;
    let mut connection = connect(&url).await;
    let broken = in_transaction(&mut connection).await.unwrap_err();
    assert_eq!(broken.sqlstate(), Some("08P01"), "{broken}");
    assert!(broken.is_connection_lost(), "{broken:?}");
}

#[tokio::test]
async fn a_commit_that_was_acknowledged_has_happened_whatever_follows() {
    let goodbye = error("FATAL", "57P01", "terminating connection");
    for behind in [Vec::new(), goodbye] {
        let (url, _server) = with_commit([complete("COMMIT"), behind].concat()).await;
        let mut connection = connect(&url).await;
        assert_eq!(in_transaction(&mut connection).await, Ok(1));
        let next = connection.batch_execute("SELECT 1").await.unwrap_err();
        assert!(next.is_connection_lost(), "{next:?}");

        // The pool does not run it again, and does not keep the dead connection.
        let pool = pool(&url, |policy| policy.max_size(1).never_suspends());
        let times = AtomicU32::new(0);
        let done = pool
            .retry()
            .idempotent()
            .transaction(async |connection: &mut Connection| {
                times.fetch_add(1, Ordering::Relaxed);
                let insert = sql_query("INSERT INTO books VALUES (1)");
                Ok::<_, RetryError>(insert.execute(connection).await?)
            });
        let done = timeout(HANG, done).await.expect("no hang");
        assert_eq!(done.unwrap(), 1);
        assert_eq!(times.into_inner(), 1);
        timeout(HANG, pool.get()).await.expect("no hang").unwrap();
    }
}

#[tokio::test]
async fn an_acknowledged_insert_is_not_one_that_is_committed() {
    // In the extended protocol the commit comes with the Sync, behind CommandComplete.
    let (url, _server) = scripted::start(async |mut session, _| {
        while session.asked().await.is_some() {
            let mut inserted = message(tag::PARSE_COMPLETE, &[]);
            inserted.extend(message(tag::BIND_COMPLETE, &[]));
            inserted.extend(complete("INSERT 0 1"));
            session.say(&inserted).await;
            session.stream.shutdown().await.unwrap();
        }
    })
    .await;
    let mut connection = connect(&url).await;
    let insert = sql_query("INSERT INTO books VALUES (1)").execute(&mut connection);
    let lost = timeout(HANG, insert).await.expect("no hang").unwrap_err();
    assert!(lost.is_connection_lost(), "{lost:?}");
    assert_eq!(lost.to_string(), "the server closed the connection");

    let mut connection = connect(&url).await;
    let both = connection.batch_execute("COMMIT; INSERT INTO books VALUES (1)");
    let lost = timeout(HANG, both).await.expect("no hang").unwrap_err();
    assert!(lost.is_connection_lost(), "{lost:?}");
}

#[tokio::test]
async fn a_server_that_ends_in_the_middle_of_a_copy_is_heard() {
    let (url, _server) = scripted::start(async |mut session, _| {
        session.asked().await.unwrap();
        session
            .say(&message(tag::COPY_IN_RESPONSE, &[0, 0, 0]))
            .await;
        session.read().await.unwrap();
        let words = "terminating connection due to administrator command";
        session.say(&error("FATAL", "57P01", words)).await;
        // Unread bytes turn the end of the stream into a reset.
        let _ = session.stream.read_u8().await;
    })
    .await;
    let mut connection = connect(&url).await;
    let mut copy = connection.copy_in("COPY books FROM STDIN").await.unwrap();
    let copied = timeout(HANG, async {
        loop {
            copy.send(&[b'x'; 4 * 1024 * 1024]).await?;
        }
    });
    let lost: Result<(), Error> = copied.await.expect("no hang");
    let lost = lost.unwrap_err();
    assert_eq!(lost.sqlstate(), Some("57P01"), "{lost}");
}

#[tokio::test]
async fn a_copy_whose_server_is_terminated_says_so() {
    let neon = common::start().await;
    for (route, url) in common::routes(&neon) {
        let mut connection = connect(&url).await;
        let mut copy = connection
            .copy_in("COPY users (name) FROM STDIN")
            .await
            .unwrap();
        copy.send(b"Ada\n").await.unwrap();
        common::until(&neon, COPYING, "1").await;
        let terminated = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE query LIKE 'COPY%' AND pid <> pg_backend_pid()";
        neon.sql(terminated).await.unwrap();
        common::until(&neon, COPYING, "0").await;
        let mut failed = None;
        while failed.is_none() {
            failed = copy.send(&[b'x'; 64 * 1024]).await.err();
        }
        let failed = failed.unwrap();
        let code = failed.sqlstate().unwrap();
        // PgBouncer has its own words.
        assert!(
            code == "57P01" || url.contains("pooler") && code.starts_with("08"),
            "{route}: {code} {failed}"
        );
        assert!(
            !failed.to_string().contains("roken pipe"),
            "{route}: {failed}"
        );
    }
}

const COPYING: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE query LIKE 'COPY%' AND state = 'active' AND pid <> pg_backend_pid()";

/// Encodes the answer to a SELECT of one integer, with these bodies of RowDescription and DataRow.
fn answer(description: &[u8], rows: &[&[u8]]) -> Vec<u8> {
    let mut answer = [
        message(tag::PARSE_COMPLETE, &[]),
        message(tag::BIND_COMPLETE, &[]),
    ]
    .concat();
    answer.extend(message(tag::ROW_DESCRIPTION, description));
    for row in rows {
        answer.extend(message(tag::DATA_ROW, row));
    }
    [answer, complete("SELECT 1"), ready(tag::status::IDLE)].concat()
}

const DESCRIPTION: &[u8] = b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01";
const ROW: &[u8] = b"\0\x01\0\0\0\x04\0\0\0\x07";
const TWO_FIELDS: &[u8] = b"\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff";

#[tokio::test]
async fn a_malformed_row_ends_the_session_for_everybody() {
    for malformed in [
        answer(&DESCRIPTION[..9], &[ROW]),
        answer(DESCRIPTION, &[TWO_FIELDS]),
        answer(DESCRIPTION, &[ROW, &ROW[..7], ROW]),
    ] {
        let (url, _server) = scripted::start(move |mut session, _| {
            let malformed = malformed.clone();
            async move {
                session.asked().await.unwrap();
                session.say(&malformed).await;
                while session.asked().await.is_some() {
                    session.say(&answer(DESCRIPTION, &[ROW])).await;
                }
            }
        })
        .await;
        let pool = pool(&url, |policy| {
            policy.named_statements(NamedStatements::Never)
        });
        let mut connection = pool.get().await.unwrap();
        let seven = || diesel::select(7.into_sql::<Integer>());
        for turn in ["first", "second"] {
            let loaded = timeout(HANG, seven().load::<i32>(&mut connection)).await;
            let lost = loaded.expect("no hang").expect_err(turn);
            assert!(lost.is_connection_lost(), "{turn}: {lost:?}");
            assert_eq!(lost.sqlstate(), Some("08P01"), "{turn}: {lost}");
        }
    }
}

#[tokio::test]
async fn a_pooler_that_could_not_say_is_asked_again() {
    for (code, questions) in [("53200", 3), ("57P03", 3), ("58030", 3), ("42501", 1)] {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let (url, _server) = scripted::start(move |mut session, _| {
            let asked = Arc::clone(&counter);
            async move {
                while let Some(sql) = session.asked().await {
                    let answer = match sql.contains("pg_prepared_statements") {
                        true => {
                            asked.fetch_add(1, Ordering::Relaxed);
                            [error("ERROR", code, "not now"), ready(tag::status::IDLE)].concat()
                        }
                        false => answer(DESCRIPTION, &[ROW]),
                    };
                    session.say(&answer).await;
                }
            }
        })
        .await;
        let mut connection = connect(&url).await;
        for _ in 0..3 {
            let seven = diesel::select(7.into_sql::<Integer>());
            let loaded = timeout(HANG, seven.load::<i32>(&mut connection)).await;
            assert_eq!(loaded.expect("no hang"), Ok(vec![7]), "{code}");
        }
        assert_eq!(
            AtomicU32::load(&asked, Ordering::Relaxed),
            questions,
            "{code}"
        );
    }
}

#[tokio::test]
async fn a_server_that_stops_nothing_is_asked_five_times_and_then_told_of() {
    let log = Log::of_warnings();
    let requests = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&requests);
    let (url, _server) = scripted::start(move |mut session, nth| {
        let requests = Arc::clone(&counter);
        async move {
            match nth {
                0 => while session.read().await.is_some() {},
                // Only its startup message tells a cancel request from a login.
                _ => drop(requests.fetch_add(1, Ordering::Relaxed)),
            }
        }
    })
    .await;
    let mut connection = connect(&url).await;
    let running = connection.batch_execute("SELECT pg_sleep(600)");
    timeout(Duration::from_millis(50), running)
        .await
        .unwrap_err();
    drop(connection);
    timeout(HANG, async {
        while !log.text().contains("is not cancelled") {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no warning: {}", log.text()));
    assert_eq!(AtomicU32::load(&requests, Ordering::Relaxed), 5);
}
