//! Requests for SQL over HTTPS: flights, batches, retries, tokens, proxies, and what is refused.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{HANG, RUNNING, counted, neon, neon_with, outline, over_https, start, until, users};
use diesel::connection::InstrumentationEvent;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::DatabaseErrorExt;
use diesel_neon::http::{BuildError, HttpConnection, TransactionUnsupported};
use neon_sim::{HttpProxy, NeonSim, Suspension};
use tokio::time::timeout;

fn https(neon: &NeonSim) -> HttpConnection {
    HttpConnection::new(over_https(neon, neon.url())).unwrap()
}

#[tokio::test]
async fn a_statement_takes_one_flight_and_a_new_connection_one_more() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let mut connection = HttpConnection::new(over_https(&neon, url.clone())).unwrap();
        // The first has two in front, which look at the time zone and set it.
        for (name, flights, statements) in [("Ada", 2, 3), ("Bob", 1, 1), ("Eve", 1, 1)] {
            let before = neon.counters();
            let insert =
                diesel::insert_into(users::table).values(users::name.eq(format!("{name} {url}")));
            insert.execute(&mut connection).await.unwrap();
            let counted = counted(&neon, &url, before);
            assert_eq!(
                (counted.flights, counted.statements),
                (flights, statements),
                "{name}"
            );
        }
    }
}

/// The role's time zone on one host says nothing of that on another.
#[tokio::test]
async fn with_several_hosts_each_statement_sets_the_time_zone() {
    let neon = start().await;
    let url = over_https(&neon, neon.url());
    let (user, rest) = url.split_once('@').unwrap();
    let (host, rest) = rest.split_once('/').unwrap();
    let rest = rest.replace("hostaddr=127.0.0.1", "hostaddr=127.0.0.1,127.0.0.1");
    let connection = HttpConnection::new(format!("{user}@{host},{host}/{rest}")).unwrap();
    for _ in 0..2 {
        let before = neon.counters();
        let count = users::table.count().get_result(&mut &connection).await;
        assert_eq!(count, Ok(0_i64));
        assert_eq!((neon.counters() - before).direct.statements, 2);
    }
}

#[tokio::test]
async fn a_thousand_statements_at_once_give_a_thousand_answers() {
    let neon = start().await;
    let connection = https(&neon);
    let asking: Vec<_> = (0..1000)
        .map(|number: i32| {
            let mut connection = connection.clone();
            tokio::spawn(async move {
                let select = diesel::select(number.into_sql::<Integer>());
                select.get_result::<i32>(&mut connection).await
            })
        })
        .collect();
    for (number, answer) in asking.into_iter().enumerate() {
        let answer = timeout(HANG, answer).await.expect("no hang").unwrap();
        assert_eq!(answer, Ok(number as i32));
    }
    let direct = neon.counters().direct;
    assert_eq!(direct.https_connections, 1);
    // Whoever does not know the time zone yet has two more in front.
    assert!(
        (1000..=3000).contains(&direct.statements),
        "{}",
        direct.statements
    );
}

#[tokio::test]
async fn a_batch_is_one_transaction_with_typed_results() {
    let neon = start().await;
    let connection = https(&neon);
    let mut batch = connection.batch().serializable().deferrable();
    let insert = diesel::insert_into(users::table).values(users::name.eq("Ada"));
    let inserted = batch.add_load::<i32, _>(insert.returning(users::id));
    let counted = batch.add_load::<i64, _>(users::table.count());
    let renamed = batch.add_execute(diesel::update(users::table).set(users::name.eq("Bea")));
    let level = batch.add_load::<Level, _>(sql_query(
        "SELECT current_setting('transaction_isolation') AS level",
    ));
    let before = neon.counters();
    let mut results = batch.send().await.unwrap();
    assert_eq!((neon.counters() - before).direct.requests, 1);
    let ids = results.take(inserted).unwrap();
    assert_eq!(ids.len(), 1);
    assert_eq!(results.take(counted), Ok(vec![1]));
    assert_eq!(results.take(renamed), Ok(1));
    assert_eq!(results.take(level).unwrap()[0].level, "serializable");

    // All or nothing; the error is that of the statement that failed.
    let mut batch = connection.batch();
    let _ = batch.add_execute(diesel::delete(users::table));
    let _ = batch.add_execute(diesel::insert_into(users::table).values(users::name.eq(sql_null())));
    let error = batch.send().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23502"), "{error:?}");
    let names = users::table
        .select(users::name)
        .load::<String>(&mut &connection)
        .await;
    assert_eq!(names, Ok(vec!["Bea".to_owned()]));

    let mut batch = connection.batch().read_only();
    let _ = batch.add_execute(diesel::delete(users::table));
    let error = batch.send().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25006"), "{error:?}");
    // Nothing is sent for nothing.
    let before = neon.counters();
    connection.batch().send().await.unwrap();
    assert_eq!((neon.counters() - before).direct.requests, 0);
}

#[derive(QueryableByName, Debug)]
struct Level {
    #[diesel(sql_type = Text)]
    level: String,
}

fn sql_null() -> diesel::expression::SqlLiteral<Text> {
    diesel::dsl::sql::<Text>("NULL")
}

#[tokio::test]
async fn transactions_over_several_requests_are_refused_before_anything_is_sent() {
    let neon = start().await;
    let mut connection = https(&neon);
    let before = neon.counters();
    let refused = connection
        .transaction(async |_| -> Result<(), Error> { unreachable!() })
        .await;
    let is_refusal = |error: &Error| matches!(error, Error::QueryBuilderError(error) if error.is::<TransactionUnsupported>());
    let error = refused.unwrap_err();
    assert!(is_refusal(&error), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("batch") && text.contains("transport=websocket"),
        "{text}"
    );
    for sql in ["BEGIN", "start transaction", "COMMIT;", "ROLLBACK"] {
        let error = sql_query(sql).execute(&mut connection).await.unwrap_err();
        assert!(is_refusal(&error), "{sql}: {error:?}");
        let several = format!("SELECT 1; {sql}");
        let error = connection.batch_execute(&several).await.unwrap_err();
        assert!(is_refusal(&error), "{several}: {error:?}");
    }
    assert!(connection.begin_test_transaction().await.is_err());
    assert_eq!((neon.counters() - before).direct.requests, 0);
}

#[tokio::test]
async fn a_dropped_future_cancels_its_statement_and_others_go_on() {
    let neon = start().await;
    let connection = https(&neon);
    let mut other = connection.clone();
    let sleeping = tokio::spawn(async move {
        sql_query("SELECT pg_sleep(600)")
            .execute(&mut &connection)
            .await
    });
    until(&neon, RUNNING, "1").await;
    // A connection that brings nothing for a second would be given up.
    assert_eq!(users::table.count().get_result(&mut other).await, Ok(0_i64));
    sleeping.abort();
    until(&neon, RUNNING, "0").await;
    assert_eq!(users::table.count().get_result(&mut other).await, Ok(0_i64));
    assert_eq!(neon.counters().direct.https_connections, 1);
}

#[tokio::test]
async fn a_suspended_compute_wakes_and_failures_that_pass_are_not_seen() {
    let neon = start().await;
    let mut connection = https(&neon);
    for suspension in [Suspension::Normal, Suspension::Reset, Suspension::Silent] {
        assert_eq!(
            users::table.count().get_result(&mut connection).await,
            Ok(0_i64)
        );
        neon.suspend(suspension).await;
    }
    neon.refuse_connections(2, "Couldn't connect to compute node");
    let count = users::table.count().get_result::<i64>(&mut connection);
    assert_eq!(timeout(HANG, count).await.expect("no hang"), Ok(0));

    neon.refuse_connections(1, "Control plane request failed: endpoint is disabled");
    let count = users::table.count().get_result::<i64>(&mut connection);
    let error = timeout(HANG, count).await.expect("no hang").unwrap_err();
    assert!(error.is_undelivered() && !error.is_transient(), "{error:?}");
    assert!(
        error.to_string().contains("endpoint is disabled"),
        "{error}"
    );
    assert_eq!(
        users::table.count().get_result(&mut connection).await,
        Ok(0_i64)
    );
}

#[tokio::test]
async fn tokens_take_the_place_of_the_password() {
    let neon = neon_with(|neon| neon.accept_token("first").accept_token("second")).await;
    let url = over_https(&neon, neon.url()).replace(&format!(":{}@", neon.password()), "@");
    let asked = Arc::new(Mutex::new(vec!["wrong", "second", "first"]));
    let tokens = Arc::clone(&asked);
    let mut connection = HttpConnection::builder(url)
        .token_source(move || {
            let token = tokens.lock().unwrap().pop();
            async move {
                token
                    .map(str::to_owned)
                    .ok_or_else(|| "no token left".into())
            }
        })
        .build()
        .unwrap();
    assert!(!format!("{connection:?}").contains("first"));
    for _ in 0..2 {
        let one = diesel::select(1.into_sql::<Integer>()).get_result(&mut connection);
        assert_eq!(one.await, Ok(1));
    }
    let error = sql_query("SELECT 1")
        .execute(&mut connection)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("authentication failed"),
        "{error}"
    );
    assert!(!error.to_string().contains("wrong"), "{error}");
    let error = sql_query("SELECT 1")
        .execute(&mut connection)
        .await
        .unwrap_err();
    assert!(
        error.is_undelivered() && error.to_string().contains("no token left"),
        "{error}"
    );
}

#[tokio::test]
async fn a_url_that_asks_for_a_session_is_refused() {
    let neon = neon().await;
    for (url, name) in [
        (neon.url(), "channel_binding"),
        (
            format!(
                "{}&options=-c%20statement_timeout%3D1",
                over_https(&neon, neon.url())
            ),
            "options",
        ),
        (
            format!(
                "{}&target_session_attrs=read-write",
                over_https(&neon, neon.url())
            ),
            "target_session_attrs",
        ),
        (
            format!(
                "{}&options=endpoint%3Dep-another-1",
                over_https(&neon, neon.url())
            ),
            "options",
        ),
        ("postgresql://u:p@%2Ftmp/d".to_owned(), "host"),
    ] {
        let error = HttpConnection::new(url).unwrap_err();
        assert!(matches!(error, BuildError::Url(_)), "{error:?}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
    let endpoint = neon.host();
    let endpoint = endpoint.split('.').next().unwrap();
    let same = format!(
        "{}&options=endpoint%3D{endpoint}",
        over_https(&neon, neon.url())
    );
    HttpConnection::new(same).unwrap();
    let two = "postgresql://u@ep-a-1.eu.aws.neon.tech,ep-b-2.eu.aws.neon.tech/d";
    HttpConnection::new(two).unwrap();
    let tokens = HttpConnection::builder(two).token_source(|| async { Ok(String::new()) });
    let error = tokens.build().unwrap_err();
    assert!(error.to_string().contains("`host`"), "{error}");

    let wrong = over_https(&neon, neon.url()).replace(neon.password(), "geheim");
    let mut connection = HttpConnection::new(wrong).unwrap();
    let error = sql_query("SELECT 1")
        .execute(&mut connection)
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert!(error.is_undelivered() && !error.is_transient(), "{error:?}");
    let shown = format!("{connection:?} {error} {error:?}");
    assert!(!shown.contains("geheim"), "{shown}");
}

#[tokio::test]
async fn instrumentation_is_told_of_each_statement() {
    let neon = start().await;
    let mut connection = https(&neon);
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        seen.lock().unwrap().push(outline(&event));
    });
    let mut clone = connection.clone();
    users::table
        .count()
        .get_result::<i64>(&mut clone)
        .await
        .unwrap();
    sql_query("SELECT wrong")
        .execute(&mut connection)
        .await
        .unwrap_err();
    let sleep = sql_query("SELECT pg_sleep(600)").execute(&mut connection);
    timeout(Duration::from_millis(100), sleep)
        .await
        .unwrap_err();
    // It was told of, and is over.
    drop(sql_query("SELECT 'never polled'").execute(&mut connection));
    let count = "SELECT COUNT(*) FROM \"users\"";
    assert_eq!(
        *events.lock().unwrap(),
        [
            format!("start {count} -- binds: []"),
            format!("finish {count}"),
            "start SELECT wrong -- binds: []".into(),
            "fail SELECT wrong: column \"wrong\" does not exist".into(),
            "start SELECT pg_sleep(600) -- binds: []".into(),
            "fail SELECT pg_sleep(600): the statement's future was dropped before its end".into(),
            "start SELECT 'never polled' -- binds: []".into(),
            "fail SELECT 'never polled': the statement's future was dropped before its end".into(),
        ]
    );
}

const CHILDS_URL: &str = "DIESEL_NEON_TEST_HTTP_URL";

/// Runs itself again with a proxy in the environment, which a process cannot change safely while it runs.
#[tokio::test]
async fn through_a_proxy_that_is_all_there_is() {
    if let Ok(url) = std::env::var(CHILDS_URL) {
        let mut connection = HttpConnection::new(url).unwrap();
        let count = users::table.count().get_result::<i64>(&mut connection);
        println!("counted {:?}", timeout(HANG, count).await.expect("no hang"));
        return;
    }
    let neon = start().await;
    let proxy = HttpProxy::start().await.unwrap();
    let target = format!("{}:443", neon.host());
    proxy.route(&target, neon.https_port());
    let url = neon
        .url()
        .replace("channel_binding=require", "channel_binding=prefer");
    let url = url.replace("&hostaddr=127.0.0.1", "");
    let run = || async {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "--exact",
                "--nocapture",
                "through_a_proxy_that_is_all_there_is",
            ])
            .env(CHILDS_URL, &url)
            .env("HTTPS_PROXY", proxy.url())
            .kill_on_drop(true);
        let output = timeout(HANG, child.output())
            .await
            .expect("no hang")
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let text = run().await;
    assert!(text.contains("counted Ok(0)"), "{text}");
    assert_eq!(proxy.requests()[0].target, target);
    proxy.demand_credentials("user", "password");
    let text = run().await;
    assert!(
        text.contains("it demands credentials") && text.contains("not run"),
        "{text}"
    );
}

#[tokio::test]
async fn an_http_connection_is_one_of_diesel_asyncs() {
    let neon = start().await;
    let url = over_https(&neon, neon.url());
    let mut connection = HttpConnection::establish(&url).await.unwrap();
    let one = diesel::select(1_i64.into_sql::<BigInt>()).get_result(&mut connection);
    assert_eq!(one.await, Ok(1_i64));
    assert!(HttpConnection::establish("mysql://h/d").await.is_err());
}
