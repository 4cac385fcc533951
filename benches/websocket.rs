//! COPY of 100 MB over a WebSocket, against the same over TLS: `cargo bench --features websocket --bench websocket`.
//!
//! The two take turns. Client and stand-in share the machine, so that the server's side of the frames counts too.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use diesel_neon::Connection;
use futures_util::StreamExt;
use neon_sim::NeonSim;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let neon = NeonSim::builder().never_suspend().start().await;
    let neon = neon.expect("the stand-in for Neon starts");
    let url = neon
        .url()
        .replace("channel_binding=require", "channel_binding=prefer");
    let port = neon.https_port();
    let over_websocket = format!("{url}&transport=websocket&https_port={port}");
    let mut connections = [connect(&url).await, connect(&over_websocket).await];
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let mut times = [[Duration::ZERO; 2]; 2];
        for (connection, times) in connections.iter_mut().zip(&mut times) {
            *times = [copy_out(connection).await, copy_in(connection).await];
        }
        for (direction, ratios) in ratios.iter_mut().enumerate() {
            let [tls, websocket] = times.map(|times| times[direction].as_secs_f64());
            ratios.push(tls / websocket);
        }
    }
    for (direction, ratios) in ["to the client", "to the server"].iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("{MEGABYTES} MB {direction}: {median:.2} of the throughput over TLS");
    }
}

async fn connect(url: &str) -> Connection {
    let mut connection = Connection::establish(url).await.expect("a connection");
    let table = "CREATE TEMPORARY TABLE bulk (line TEXT)";
    connection.batch_execute(table).await.expect("a table");
    connection
}

async fn copy_out(connection: &mut Connection) -> Duration {
    let began = Instant::now();
    let lines = MEGABYTES * 1_000_000 / (LINE + 1);
    let sql =
        format!("COPY (SELECT repeat('x', {LINE}) FROM generate_series(1, {lines})) TO STDOUT");
    let mut rows = connection.copy_out(&sql).await.expect("a COPY");
    let mut bytes = 0;
    while let Some(row) = rows.next().await {
        bytes += row.expect("a row").len();
    }
    assert_eq!(bytes, lines * (LINE + 1));
    began.elapsed()
}

async fn copy_in(connection: &mut Connection) -> Duration {
    let began = Instant::now();
    let chunk = format!("{}\n", "x".repeat(LINE)).repeat(64);
    let chunks = MEGABYTES * 1_000_000 / chunk.len();
    let mut copy = connection
        .copy_in("COPY bulk FROM STDIN")
        .await
        .expect("a COPY");
    for _ in 0..chunks {
        copy.send(chunk.as_bytes()).await.expect("room");
    }
    copy.finish().await.expect("success");
    let took = began.elapsed();
    let empty = connection.batch_execute("TRUNCATE bulk").await;
    empty.expect("an empty table");
    took
}

const ROUNDS: usize = 7;
const MEGABYTES: usize = 100;
const LINE: usize = 999;
