//! How a statement is stopped, and what a client that leaves stops.

mod common;

use std::time::Duration;

use common::raw;
use common::{bounded, config, connect, eventually, tls, try_connect};
use neon_sim::NeonSim;
use tokio::io::AsyncWriteExt;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

async fn start() -> NeonSim {
    bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap()
}

/// "CancelRequest works over TLS."
#[tokio::test]
async fn a_cancel_request_ends_the_statement() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let (client, _) = connect(&url, neon.ca_path()).await;
        let token = client.cancel_token();
        let (sleep, cancel) = tokio::join!(
            bounded(client.batch_execute("SELECT pg_sleep(600)")),
            async {
                running(&neon, "1").await;
                token
                    .cancel_query(MakeRustlsConnect::new(tls(neon.ca_path())))
                    .await
            }
        );
        cancel.unwrap();
        let code = sleep.unwrap_err().code().cloned();
        assert_eq!(code, Some(SqlState::QUERY_CANCELED));
        client.simple_query("SELECT 1").await.unwrap();
    }
    let counters = neon.counters();
    assert_eq!((counters.direct.cancels, counters.pooled.cancels), (1, 1));
}

/// "CancelRequest works over TLS", and without, as libpq sends it.
#[tokio::test]
async fn a_cancel_request_in_plain_text_does_too() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let psql = tokio::process::Command::new("psql")
            .args(["--no-psqlrc", "-d", &url, "-c", "SELECT pg_sleep(600)"])
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        running(&neon, "1").await;
        let interrupt = tokio::process::Command::new("kill")
            .args(["-INT", &psql.id().unwrap().to_string()])
            .status();
        assert!(bounded(interrupt).await.unwrap().success());
        let output = bounded(psql.wait_with_output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("canceling statement due to user request"),
            "{said}"
        );
    }
    let counters = neon.counters();
    assert_eq!((counters.direct.cancels, counters.pooled.cancels), (1, 1));
}

/// "The proxy closes that socket at once and cancels afterwards: a statement sent right after the close was
/// cancelled in 19 of 20 tries."
#[tokio::test]
async fn a_statement_sent_after_the_close_of_a_cancel_request_is_cancelled() {
    let builder = NeonSim::builder().never_suspend();
    let builder = builder.cancel_delay(Duration::from_secs(3));
    let neon = bounded(builder.start()).await.unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        for encrypted in [false, true] {
            let mut config = config(&url);
            config.ssl_mode(SslMode::Prefer);
            let (client, _) = try_connect(&config, neon.ca_path()).await.unwrap();
            let request = raw::cancel_request(&client).await;
            // Nothing runs yet.
            let mut socket = raw::tcp(&neon).await;
            if encrypted {
                let mut socket = raw::direct_tls(&neon, socket, Some(neon.host())).await;
                socket.write_all(&request).await.unwrap();
                raw::until_closed(&mut socket).await;
            } else {
                socket.write_all(&request).await.unwrap();
                raw::until_closed(&mut socket).await;
            }
            let next = bounded(client.batch_execute("SELECT pg_sleep(600)")).await;
            let code = next.unwrap_err().code().cloned();
            assert_eq!(code, Some(SqlState::QUERY_CANCELED));
        }
    }
}

/// "Closing the client connection in mid-statement cancels it on the direct endpoint; on the pooled one the
/// statement goes on running."
#[tokio::test]
async fn a_client_that_leaves_cancels_its_statement_on_the_direct_endpoint_alone() {
    let neon = start().await;
    for (url, left) in [(neon.url(), "0"), (neon.pooled_url(), "1")] {
        let (client, driver) = connect(&url, neon.ca_path()).await;
        let sleep = tokio::spawn(async move {
            let _ = client.batch_execute("SELECT pg_sleep(600)").await;
        });
        running(&neon, "1").await;
        driver.abort();
        bounded(sleep).await.unwrap();
        // The pooler lets go of the server, which does not notice before it has something to say.
        let clients = async || neon.pgbouncer_command("SHOW CLIENTS").await.unwrap();
        let gone = |row: &Vec<_>| !row.contains(&Some("neondb_owner".to_owned()));
        eventually("the client is gone", async || {
            clients().await.iter().all(gone)
        })
        .await;
        running(&neon, left).await;
    }
}

async fn running(neon: &NeonSim, expected: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
        WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    eventually("the statement's state", async || {
        neon.sql(sql).await.unwrap()[0][0].as_deref() == Some(expected)
    })
    .await;
}
