//! The URLs, and the clients that take them.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncConnection, RunQueryDsl};
use diesel_neon::Connection;
use diesel_neon::http::HttpConnection;
use neon_sim::{Suspension, TestDatabase, block_on};

use super::common::{bounded, psql, tls};
use super::{start, value};
use tokio_postgres_rustls::MakeRustlsConnect;

#[tokio::test]
async fn diesel_neon_takes_each_url() {
    let database = start(TestDatabase::builder()).await;
    let one = || diesel::select(1_i64.into_sql::<BigInt>());
    for url in [
        database.url(),
        database.pooled_url(),
        database.websocket_url(),
        database.pooled_websocket_url(),
        database.postgres_url(),
        database.pgbouncer_url(),
    ] {
        let mut connection = bounded(Connection::establish(&url)).await.unwrap();
        let answer: i64 = bounded(one().get_result(&mut connection)).await.unwrap();
        assert_eq!(answer, 1, "{url}");
    }
    let before = database.counters();
    for url in [database.https_url(), database.pooled_https_url()] {
        let mut connection = HttpConnection::new(url).unwrap();
        let answer: i64 = bounded(one().get_result(&mut connection)).await.unwrap();
        assert_eq!(answer, 1);
    }
    let counted = database.counters() - before;
    assert_eq!((counted.direct.requests, counted.pooled.requests), (1, 1));
}

/// psql knows the parameters of `url`. tokio-postgres refuses those that it does not know, and here verifies the certificate.
#[tokio::test]
async fn other_clients_take_theirs() {
    let database = start(TestDatabase::builder()).await;
    for url in [database.url(), database.pooled_url()] {
        let name = psql(&url, "SELECT current_database()", &[]).await;
        assert_eq!(name.unwrap(), database.database());
    }
    let before = database.counters();
    for url in [database.portable_url(), database.portable_pooled_url()] {
        let name = psql(&url, "SELECT current_database()", &[]).await;
        assert_eq!(name.unwrap(), database.database());
        let mut tls = tls(database.ca_path());
        tls.alpn_protocols.clear();
        let connector = MakeRustlsConnect::new(tls);
        let connecting = tokio_postgres::connect(&url, connector);
        let (client, connection) = bounded(connecting).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(value(&client, "SELECT 1::bigint").await, "1");
    }
    let counted = database.counters() - before;
    assert_eq!(
        (counted.direct.connections, counted.pooled.connections),
        (2, 2)
    );
}

#[test]
fn a_test_without_a_runtime_waits_on_its_thread() {
    let database = block_on(TestDatabase::builder().sql("CREATE TABLE t ()").start()).unwrap();
    assert!(block_on(database.sql("SELECT FROM t")).is_ok());
    block_on(database.suspend(Suspension::Normal));
    assert!(database.is_suspended());
    block_on(database.wake());
    assert_eq!(database.counters().wakes, 1);
    // What a step uses of tokio's is there, too.
    let sleeping = TestDatabase::builder().prepare(|_| async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        Ok::<_, std::io::Error>(())
    });
    block_on(sleeping.start()).unwrap();
}
