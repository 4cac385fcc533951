//! The counters.

mod common;

use common::{bounded, config, connect, direct_negotiation, eventually, psql, try_connect};
use neon_sim::NeonSim;

/// Of the stand-in's own: what a client does is counted at the endpoint that it uses.
#[tokio::test]
async fn a_prepared_statement_takes_two_flights_and_an_unnamed_one_takes_one() {
    let neon = bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap();
    let (client, _) = connect(&neon.url(), neon.ca_path()).await;

    let before = neon.counters();
    let statement = client.prepare("SELECT 1").await.unwrap();
    client.query(&statement, &[]).await.unwrap();
    let direct = (neon.counters() - before).direct;
    assert_eq!(direct.flights, 2);
    assert_eq!(direct.statements, 1);
    assert_eq!(direct.named_parses, 1);
    assert!(direct.bytes_in > 0 && direct.bytes_out > 0);

    let before = neon.counters();
    client.query_typed("SELECT 1", &[]).await.unwrap();
    client.batch_execute("SELECT 1; SELECT 2").await.unwrap();
    let direct = (neon.counters() - before).direct;
    assert_eq!(direct.flights, 2);
    assert_eq!(direct.statements, 2);
    assert_eq!(direct.named_parses, 0);

    let before = neon.counters();
    drop((client, statement));
    eventually("the end is seen", async || {
        (neon.counters() - before).direct.terminates == 1
    })
    .await;
    let difference = neon.counters() - before;
    assert_eq!(difference.direct.statements, 0);
    assert_eq!(difference.pooled, Default::default());
}

/// "Flights to the first row: TCP, SSLRequest, SCRAM-PLUS, then the query: 6; direct TLS: 5", the query included.
#[tokio::test]
async fn connecting_takes_five_round_trips_or_four() {
    let neon = bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap();
    let url = neon.pooled_url();
    for (config, round_trips) in [(config(&url), 5), (direct_negotiation(&url), 4)] {
        let before = neon.counters();
        let (client, _) = try_connect(&config, neon.ca_path()).await.unwrap();
        let pooled = (neon.counters() - before).pooled;
        assert_eq!((pooled.attempts, pooled.connections), (1, 1));
        assert_eq!(pooled.handshake_flights, round_trips);
        assert_eq!((pooled.flights, pooled.bytes_in), (0, 0));
        drop(client);
        let gone = async || (neon.counters() - before).pooled.terminates == 1;
        eventually("the end is seen", gone).await;
    }
}

/// Of the stand-in's own: a test's look at the servers does not show in what it counts.
#[tokio::test]
async fn what_goes_past_the_proxy_is_not_counted() {
    let neon = bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap();
    let before = neon.counters();
    neon.sql("SELECT 1").await.unwrap();
    neon.create_database("other").await.unwrap();
    psql(&neon.postgres_url(), "SELECT 1", &[]).await.unwrap();
    psql(&neon.pgbouncer_url(), "SELECT 1", &[]).await.unwrap();
    assert_eq!(neon.counters() - before, Default::default());
}
