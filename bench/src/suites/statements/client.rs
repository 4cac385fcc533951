//! What a client takes of its own machine: the time of the processor, and memory. On a thread of its own, whose work is nobody
//! else's.

use std::thread;

use allocation_counter::measure;
use tokio::runtime::{Builder, Runtime};

use super::operations::{Operation, Peer};
use super::race::processor_row;
use super::{ARMS, Ours, Sqlx, Stock, TokioPostgres};
use crate::report::{Table, Unit};

pub fn table(text: &str, url: &str) -> Table {
    let table = || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut table = Table::new("client", "", &ARMS).text(text);
        let memory = [
            Memory::of::<Ours>(&runtime, url),
            Memory::of::<Stock<true>>(&runtime, url),
            Memory::of::<TokioPostgres>(&runtime, url),
            Memory::of::<Sqlx<true>>(&runtime, url),
        ];
        let mut row = |what: &str, bytes: fn(&Memory) -> Option<f64>| {
            let bytes: Vec<_> = memory.iter().map(bytes).collect();
            table.measured_once(what, Unit::Bytes, &bytes);
        };
        row("an open connection that has done all of it", |memory| {
            Some(memory.connection)
        });
        row("10,000 rows: memory at most", |memory| memory.rows);
        row("COPY of 10,000 rows: memory at most", |memory| memory.copy);
        runtime.block_on(async {
            let mut arms = super::arms(url, super::CONNECTIONS).await;
            for operation in Operation::ALL {
                processor_row(operation, &mut arms, &mut table).await;
            }
        });
        table
    };
    thread::scope(|scope| scope.spawn(table).join().expect("no panic"))
}

struct Memory {
    connection: f64,
    /// Above what the connection takes, while it reads so many.
    rows: Option<f64>,
    /// The same while it writes them.
    copy: Option<f64>,
}

impl Memory {
    fn of<P: Peer>(runtime: &Runtime, url: &str) -> Self {
        let connect = || runtime.block_on(used::<P>(url));
        // What all have in common is there.
        let mut peer = connect();
        let mut open = Vec::with_capacity(CONNECTIONS);
        let all = measure(|| open.extend((0..CONNECTIONS).map(|_| connect())));
        let mut at_most = |operation| {
            let run = || runtime.block_on(peer.run(operation, 1)).expect("an answer");
            P::has(operation).then(|| measure(run).bytes_max as f64)
        };
        Self {
            connection: all.bytes_current as f64 / CONNECTIONS as f64,
            rows: at_most(Operation::ManyRows),
            copy: at_most(Operation::CopyIn),
        }
    }
}

/// Returns a connection that has done everything three times.
async fn used<P: Peer>(url: &str) -> P {
    let mut peer = P::connect(url).await.expect("a connection");
    for operation in Operation::ALL.into_iter().filter(|one| P::has(*one)) {
        for id in 1..=3 {
            peer.run(operation, id).await.expect("an answer");
        }
    }
    peer
}

const CONNECTIONS: usize = 10;
