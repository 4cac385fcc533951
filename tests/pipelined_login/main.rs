//! `pipeline_login`: the first statement leaves without waiting for the answer to the login.

#[path = "../common/mod.rs"]
mod common;

mod flights;
mod unanswered;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{HANG, connect, neon_with, over_websocket, pool, routes, start, users};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    ConnectErrorKind, Connection, DatabaseErrorExt, DatabaseUrl, Pool, PoolError, PooledConnection,
};
use neon_sim::{NeonSim, Suspension, WebSocketFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

fn pipelined(url: &str) -> String {
    format!("{url}&pipeline_login=true")
}

/// Returns the URL of the direct endpoint over a WebSocket, with a pipelined login.
fn over_443(neon: &NeonSim) -> String {
    pipelined(&over_websocket(neon, neon.url()))
}

async fn get(pool: &Pool) -> Result<PooledConnection<'_>, PoolError> {
    timeout(HANG, pool.get()).await.expect("no hang")
}

async fn add(connection: &mut Connection, name: &str) -> QueryResult<usize> {
    let insert = diesel::insert_into(users::table).values(users::name.eq(name));
    timeout(HANG, insert.execute(connection))
        .await
        .expect("no hang")
}

async fn count(neon: &NeonSim, name: &str) -> usize {
    let rows = neon
        .sql(&format!("SELECT 1 FROM users WHERE name = '{name}'"))
        .await;
    rows.unwrap().len()
}

#[tokio::test]
async fn a_refused_login_is_the_error_of_the_first_statement() {
    let neon = start().await;
    for url in [over_443(&neon), pipelined(&neon.url())] {
        let wrong = url.replacen(neon.password(), "s3cret", 1);
        let nowhere = url.replacen("/neondb?", "/nowhere?", 1);
        assert_ne!(url, nowhere);
        for (url, kind, words) in [
            (
                wrong,
                ConnectErrorKind::Authentication,
                "password authentication failed",
            ),
            (
                nowhere,
                ConnectErrorKind::Database,
                "database \"nowhere\" does not exist",
            ),
        ] {
            let pool = pool(&url, |policy| policy);
            let mut connection = get(&pool).await.unwrap();
            let error = add(&mut connection, "nobody").await.unwrap_err();
            let refused = error.connect_error().expect("the login is refused");
            assert_eq!((refused.kind(), refused.attempts()), (kind, 1), "{error}");
            assert_eq!(error.sqlstate(), Some("08001"));
            assert!(
                error.is_connection_lost() && !error.is_transient(),
                "{error}"
            );
            let told = format!("{error} {error:?} {refused} {refused:?}");
            assert!(error.to_string().contains(words), "{told}");
            assert!(!told.contains("s3cret"), "{told}");
            let again = add(&mut connection, "nobody").await.unwrap_err();
            assert_eq!(again.connect_error().map(|error| error.kind()), Some(kind));
            assert_eq!(pool.status().last_failure.unwrap().kind(), kind);
            drop(connection);
            // From now on the pool asks before it hands out.
            match get(&pool).await {
                Err(PoolError::Connect(error)) => assert_eq!(error.kind(), kind, "{error}"),
                other => panic!("{other:?}"),
            }

            let error = connect(&url).await.batch_execute("SELECT 1").await;
            let error = error.unwrap_err().connect_error().unwrap();
            assert_eq!(error.kind(), kind);
        }
    }
    assert_eq!(count(&neon, "nobody").await, 0);
}

/// Nobody is handed a connection whose server cannot be reached at all.
#[tokio::test]
async fn what_fails_before_the_login_fails_the_connect() {
    let neon = start().await;
    let url = over_443(&neon);
    let (before, roots) = url.split_once("sslrootcert=").unwrap();
    let after = roots.split_once('&').map_or("", |(_, after)| after);
    let pool = pool(&format!("{before}{after}"), |policy| policy);
    match get(&pool).await {
        Err(PoolError::Connect(error)) => assert_eq!(error.kind(), ConnectErrorKind::Tls),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_login_that_passes_is_tried_again_with_its_statement() {
    let neon = start().await;
    let answer = |status| WebSocketFault::Answer {
        status,
        body: String::new(),
    };
    for (n, url) in [over_443(&neon), pipelined(&neon.url())].iter().enumerate() {
        let websocket = n == 0;
        for fault in 0..4 {
            match fault {
                0 => neon.refuse_connections(2, "Too many connections attempts"),
                1 => neon.refuse_connections(1, "the database system is starting up"),
                2 if websocket => neon.disturb_websockets(2, answer(503)),
                _ => neon.refuse_connections(3, "Couldn't connect to compute node"),
            }
            let name = format!("{websocket} {fault}");
            let pool = pool(url, |policy| policy);
            let added = add(&mut get(&pool).await.unwrap(), &name).await;
            assert_eq!(added, Ok(1), "{name}");
            assert_eq!(count(&neon, &name).await, 1);
            neon.clear_faults();
        }
    }
}

#[tokio::test]
async fn the_first_statement_waits_for_the_compute_to_wake() {
    let neon = neon_with(|neon| neon.cold_start(Duration::from_millis(3500))).await;
    for url in [neon.url(), neon.pooled_url()] {
        let url = pipelined(&over_websocket(&neon, url));
        // The server may be silent while it wakes its compute.
        let pool = pool(&url, |policy| {
            policy.response_timeout(Duration::from_secs(3))
        });
        for suspension in [Suspension::Normal, Suspension::Silent] {
            neon.suspend(suspension).await;
            let mut connection = get(&pool).await.unwrap();
            let one = diesel::select(1.into_sql::<Integer>());
            assert_eq!(one.get_result(&mut connection).await, Ok(1), "{url}");
            let connects = pool.status().connects;
            assert!(connects.cold_starts > 0, "{connects:?}");
            drop(connection);
            pool.invalidate_all();
        }
    }
}

/// Passes on what a client and the server at `port` say, and cuts the first connection once the server, or the client,
/// has said so many bytes.
async fn cutter(port: u16, of_server: bool, after: usize) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let has_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&has_cut);
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((client, _)) = listener.accept().await {
            let (is_cut, cut) = (std::mem::take(&mut is_first), Arc::clone(&cut));
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                    return;
                };
                let limit = |cuts: bool| match cuts && is_cut {
                    true => after,
                    false => usize::MAX,
                };
                let (mut up, mut down) = (limit(!of_server), limit(of_server));
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::select! {
                    () = pass(&mut from_client, &mut to_server, &mut up) => {}
                    () = pass(&mut from_server, &mut to_client, &mut down) => {}
                }
                if up == 0 || down == 0 {
                    cut.store(true, Ordering::SeqCst);
                }
            });
        }
    });
    (own, has_cut)
}

/// Passes bytes on until there are no more, or `left` is 0.
async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    left: &mut usize,
) {
    let mut bytes = [0; 4096];
    while *left > 0 {
        let room = bytes.len().min(*left);
        let Ok(read @ 1..) = from.read(&mut bytes[..room]).await else {
            return;
        };
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
        *left -= read;
    }
}

#[tokio::test]
async fn nothing_runs_twice_wherever_the_connection_is_cut() {
    let neon = start().await;
    for of_server in [true, false] {
        let mut was_unknown = false;
        for step in 1.. {
            let after = step * 37;
            let (port, has_cut) = cutter(neon.https_port(), of_server, after).await;
            let own = format!("https_port={}", neon.https_port());
            let url = over_443(&neon).replace(&own, &format!("https_port={port}"));
            let name = format!("{of_server} {after}");
            let pool = pool(&url, |policy| policy);
            let added = match get(&pool).await {
                Ok(mut connection) => add(&mut connection, &name).await,
                Err(error) => panic!("{name}: {error}"),
            };
            let rows = count(&neon, &name).await;
            match added {
                Ok(added) => assert_eq!((added, rows), (1, 1), "{name}"),
                Err(error) => {
                    was_unknown = true;
                    assert!(error.is_connection_lost(), "{name}: {error}");
                    assert!(error.connect_error().is_none(), "{name}: {error:?}");
                    assert!(rows <= 1, "{name}");
                }
            }
            if !AtomicBool::load(&has_cut, Ordering::SeqCst) {
                assert!(step > 10 && was_unknown, "{name}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_settings_that_diesel_counts_on_are_set_in_front_of_the_first_statement() {
    let neon = start().await;
    neon.sql("ALTER ROLE neondb_owner SET timezone = 'Asia/Kathmandu'")
        .await
        .unwrap();
    for (route, url) in routes(&neon) {
        let mut connection = connect(&pipelined(&url)).await;
        for _ in 0..2 {
            let zone = diesel::select(diesel::dsl::sql::<Text>("current_setting('TimeZone')"));
            let zone: String = zone.get_result(&mut connection).await.unwrap();
            assert_eq!(zone, "UTC", "{route}");
        }
        let encoding = connection.parameter("client_encoding");
        assert_eq!(encoding.as_deref(), Some("UTF8"), "{route}");
    }
}

#[tokio::test]
async fn statements_of_all_kinds_may_come_first() {
    let neon = start().await;
    let text = "p".repeat(300_000);
    for (route, url) in routes(&neon) {
        let url = pipelined(&url);
        let mut connection = connect(&url).await;
        // More than is kept until the login is answered.
        let back = diesel::select(text.clone().into_sql::<Text>());
        let back = timeout(HANG, back.get_result::<String>(&mut connection)).await;
        match back.expect("no hang") {
            Ok(back) => assert!(back == text, "{route}"),
            Err(error) => panic!("{route}: {error}"),
        }

        let connection = connect(&url).await;
        let one = async |n: i32| {
            let n = diesel::select(n.into_sql::<Integer>());
            n.get_result::<i32>(&mut &connection).await
        };
        let all = futures_util::future::join3(one(1), one(2), one(3));
        let all = timeout(HANG, all).await.expect("no hang");
        assert_eq!(all, (Ok(1), Ok(2), Ok(3)), "{route}");

        let mut connection = connect(&url).await;
        let failed = connection.batch_execute("SELECT 1/0").await.unwrap_err();
        assert_eq!(failed.sqlstate(), Some("22012"), "{route}");
        connection.batch_execute("SELECT 1").await.unwrap();

        let mut connection = connect(&url).await;
        let failed = connection
            .transaction(async |connection| {
                add(connection, route).await?;
                Err::<(), _>(Error::RollbackTransaction)
            })
            .await;
        assert_eq!(failed, Err(Error::RollbackTransaction));
        assert_eq!(count(&neon, route).await, 0);
    }
}

#[tokio::test]
async fn a_connection_that_comes_back_without_a_statement_is_kept() {
    let neon = start().await;
    let pool = pool(&over_443(&neon), |policy| policy.max_size(1));
    drop(get(&pool).await.unwrap());
    for name in ["a", "b"] {
        assert_eq!(add(&mut get(&pool).await.unwrap(), name).await, Ok(1));
    }
    assert_eq!(pool.status().connects.opened, 1);
    pool.close(HANG).await.unwrap();

    // One that is dropped in the middle of its login leaves nothing open.
    neon.hang_connections(1);
    drop(connect(&over_443(&neon)).await);
}

#[tokio::test]
async fn a_statement_is_cancelled_also_before_its_login_is_answered() {
    let neon = neon_with(|neon| {
        // The statement has begun before the request to cancel it is passed on.
        neon.cold_start(Duration::from_secs(2))
            .cancel_delay(Duration::from_secs(4))
    });
    let neon = neon.await;
    neon.suspend(Suspension::Normal).await;
    let mut connection = connect(&over_443(&neon)).await;
    let token = connection.cancel_token();
    let sleep = connection.batch_execute("SELECT pg_sleep(600)");
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        token.cancel().await
    };
    let (slept, cancelled) = timeout(HANG, futures_util::future::join(sleep, cancel))
        .await
        .expect("no hang");
    cancelled.unwrap();
    let error = slept.unwrap_err();
    assert!(
        error.sqlstate() == Some("57014") || error.is_connection_lost(),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_login_is_waited_for_where_something_comes_before_the_first_statement() {
    let neon = start().await;
    let wrong = over_443(&neon).replacen(neon.password(), "s3cret", 1);
    let is_refused = |error: &PoolError| match error {
        PoolError::Connect(error) => error.kind() == ConnectErrorKind::Authentication,
        _ => false,
    };
    let hooked = Pool::builder(&wrong)
        .after_connect(|connection, _| Box::pin(connection.batch_execute("SELECT 1")))
        .build()
        .unwrap();
    let error = get(&hooked).await.map(drop).unwrap_err();
    assert!(is_refused(&error), "{error:?}");

    let stock = common::pool_of::<AsyncPgConnection>(&wrong, |policy| policy);
    let error = timeout(HANG, stock.get()).await.expect("no hang");
    let error = error.map(drop).unwrap_err();
    assert!(is_refused(&error), "{error:?}");

    let asks = format!("{wrong}&target_session_attrs=read-write");
    let error = get(&pool(&asks, |policy| policy)).await.map(drop);
    assert!(is_refused(&error.unwrap_err()));
}

#[tokio::test]
async fn the_example_times_each_way() {
    let mut command = common::example("function");
    // The stand-in looks for PostgreSQL.
    command.envs(std::env::vars().filter(|(name, _)| name == "PATH"));
    let output = timeout(HANG, command.arg("1").output());
    let output = output.await.expect("no hang").unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    assert!(output.status.success(), "{told}");
    let rows: Vec<_> = told.lines().skip(2).collect();
    assert_eq!(rows.len(), 5, "{told}");
    assert!(
        rows.iter().all(|row| row.split('|').count() == 11),
        "{told}"
    );
}

#[test]
fn the_parameter_is_read_and_libpq_is_not_told() {
    let at = |query: &str| DatabaseUrl::parse(&format!("postgresql://u@localhost/db?{query}"));
    assert!(!at("").unwrap().pipelines_login());
    let url = at("pipeline_login=true").unwrap();
    assert!(url.pipelines_login() && url.to_string().contains("pipeline_login=true"));
    assert!(!url.to_libpq().contains("pipeline"));
    assert!(!url.with_pipelined_login(false).pipelines_login());
    assert!(at("pipeline_login=1").is_err());
}
