//! How many flights a login takes together with what follows it.

use std::future::Future;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl;
use diesel_neon::RetryError;
use neon_sim::NeonSim;
use tokio::time::{sleep, timeout};

use super::common::{HANG, connect, counted, over_websocket, pool, start};
use super::{add, count, over_443, pipelined};

/// Runs `work`, whose login ends with this flight, and returns how many flights it has taken. No answer to that flight
/// leaves before so many statements have arrived: what waits for an answer in front of them never ends.
async fn flights<T>(
    neon: &NeonSim,
    url: &str,
    last: u64,
    statements: u64,
    work: impl Future<Output = T>,
) -> (T, u64) {
    let before = neon.counters();
    let counted = || counted(neon, url, before);
    neon.hold_answers(last);
    let arrived = async {
        while counted().statements < statements {
            sleep(Duration::from_millis(1)).await;
        }
        neon.release_answers();
    };
    let both = timeout(HANG, futures_util::future::join(work, arrived));
    let (done, ()) = both.await.expect("the statements wait for no answer");
    (done, counted().handshake_flights + counted().flights)
}

#[tokio::test]
async fn login_and_first_statement_share_a_flight() {
    let neon = start().await;
    let mut open = Vec::new();
    for url in [neon.url(), neon.pooled_url()] {
        let websocket = over_websocket(&neon, url.clone());
        let tcp = format!("{url}&sslnegotiation=direct");
        for (url, last) in [(websocket, 2), (tcp, 4)] {
            let total = |before| {
                let counted = counted(&neon, &url, before);
                counted.handshake_flights + counted.flights
            };
            let sum = diesel::select(1.into_sql::<Integer>() + 1);
            // Whoever waits for the answer takes one more.
            let before = neon.counters();
            let mut waits = connect(&url).await;
            assert_eq!(sum.get_result(&mut waits).await, Ok(2));
            assert_eq!(total(before), last + 1, "{url}");

            let url = pipelined(&url);
            let pool = pool(&url, |policy| policy);
            let first = async {
                let mut connection = pool.get_owned().await.unwrap();
                assert_eq!(sum.get_result(&mut connection).await, Ok(2));
                connection
            };
            let (connection, taken) = flights(&neon, &url, last, 1, first).await;
            assert_eq!(taken, last, "{url}");

            let first = async {
                let mut single = connect(&url).await;
                assert_eq!(sum.get_result(&mut single).await, Ok(2));
                single
            };
            let (mut single, taken) = flights(&neon, &url, last, 1, first).await;
            assert_eq!(taken, last, "{url}");

            let before = neon.counters();
            assert_eq!(sum.get_result(&mut single).await, Ok(2));
            assert_eq!(total(before), 1, "{url}");
            // A goodbye would be a flight, too.
            open.push((waits, connection, single));
        }
    }
}

#[tokio::test]
async fn a_transaction_begins_with_the_login() {
    let neon = start().await;
    let url = over_443(&neon);
    let pool = pool(&url, |policy| policy);
    let added = pool.transaction(async |connection| {
        add(connection, "a").await?;
        Ok::<_, RetryError>(add(connection, "b").await?)
    });
    // TLS; all up to BEGIN and the first statement; the second; COMMIT.
    let (added, taken) = flights(&neon, &url, 2, 2, added).await;
    assert_eq!((added.unwrap(), taken), (1, 4));
    assert_eq!(count(&neon, "a").await + count(&neon, "b").await, 2);
}
