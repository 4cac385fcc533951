//! COPY over a WebSocket beside the same over TLS.

use std::time::Instant;

use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use diesel_neon::Connection;
use futures_util::StreamExt;

use super::on_runtime;
use crate::report::{Chapter, Table, Unit};
use crate::stand_in;

const ROUNDS: usize = 7;
const MEGABYTES: usize = 50;
const LINE: usize = 999;

pub fn run() -> Chapter {
    Chapter {
        suite: "websocket".into(),
        title: "COPY over a WebSocket".into(),
        text: TEXT.into(),
        tables: vec![on_runtime(table())],
        plots: Vec::new(),
    }
}

const TEXT: &str = "\
A connection of this crate's with `transport=websocket` copies 50 MB each way, in turns with one that speaks TLS. The server's side of \
the frames is on the same machine, and counts too; Neon's proxy sends frames of 1 kB, as the stand-in does.";

async fn table() -> Table {
    let neon = stand_in::start().await;
    let mut websocket = connect(&neon.websocket_url()).await;
    let mut tls = connect(&neon.url()).await;
    let mut out = [const { Vec::new() }; 2];
    let mut back = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        let mut both = [(0, &mut websocket), (1, &mut tls)];
        // Neither always comes behind the other.
        both.rotate_left(round % 2);
        for (arm, connection) in both {
            out[arm].push(copy_out(connection).await);
            back[arm].push(copy_in(connection).await);
        }
    }
    let mut table = Table::new(
        "copy",
        "50 MB",
        &["diesel-neon, WebSocket", "diesel-neon, TLS"],
    );
    table.measured("to the client", Unit::Seconds, &out);
    table.measured("to the server", Unit::Seconds, &back);
    table
}

async fn connect(url: &str) -> Connection {
    let mut connection = Connection::establish(url).await.expect("a connection");
    let table = "CREATE TEMPORARY TABLE bulk (line TEXT)";
    connection.batch_execute(table).await.expect("a table");
    connection
}

/// Returns the seconds that it takes.
async fn copy_out(connection: &mut Connection) -> f64 {
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
    began.elapsed().as_secs_f64()
}

/// Returns the seconds that it takes.
async fn copy_in(connection: &mut Connection) -> f64 {
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
    assert_eq!(copy.finish().await.expect("success"), chunks * 64);
    let took = began.elapsed().as_secs_f64();
    let empty = connection.batch_execute("TRUNCATE bulk").await;
    empty.expect("an empty table");
    took
}
