//! How many instructions a client executes for one operation, as valgrind counts them, which other work on the machine does
//! not change.
//!
//! A process for each: what runs on its warm connection is between two marks.

use std::thread;

use tokio::runtime::Runtime;

use super::operations::{Operation, Peer};
use super::{Ours, Sqlx, Stock, TokioPostgres};
use crate::count;
use crate::report::{Table, Unit};

const PEERS: [&str; 4] = ["diesel-neon", "AsyncPgConnection", "tokio-postgres", "sqlx"];

/// The name of the part that has a process to itself.
pub const PART: &str = "instructions";

pub fn table(url: &str) -> Table {
    let mut table = Table::new("instructions", "", &PEERS);
    for operation in Operation::ALL {
        let count = |peer| move || counted(peer, operation, url);
        let counts = thread::scope(|scope| {
            // As many at a time as there are cores, on the smallest machine.
            let mut counts = Vec::new();
            for two in PEERS.chunks(2) {
                let processes: Vec<_> = two.iter().map(|peer| scope.spawn(count(*peer))).collect();
                let joined = processes.into_iter().map(|one| one.join());
                counts.extend(joined.map(|one| one.expect("no panic")));
            }
            counts
        });
        table.counted(operation.name(), Unit::Instructions, &counts);
    }
    table
}

fn counted(peer: &str, operation: Operation, url: &str) -> Option<f64> {
    if peer == "AsyncPgConnection" && !Stock::<true>::has(operation) {
        return None;
    }
    let arguments = [PART, peer, operation.name()].map(String::from);
    let counts = count::instructions(&arguments, url)?;
    Some(counts[0] / f64::from(operation.repetitions()))
}

/// Runs an operation on one thread, under valgrind.
pub fn run(arguments: &[&str]) {
    let [peer, name] = arguments else {
        panic!("a peer and an operation, not {arguments:?}");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let operation = Operation::ALL.into_iter().find(|one| one.name() == *name);
    let operation = operation.expect("a known operation");
    match *peer {
        "diesel-neon" => repeat::<Ours>(&runtime, operation),
        "AsyncPgConnection" => repeat::<Stock<true>>(&runtime, operation),
        "tokio-postgres" => repeat::<TokioPostgres>(&runtime, operation),
        "sqlx" => repeat::<Sqlx<true>>(&runtime, operation),
        unknown => panic!("no peer is called {unknown}"),
    }
}

fn repeat<P: Peer>(runtime: &Runtime, operation: Operation) {
    let peer = runtime.block_on(P::connect(&count::url()));
    let mut peer = peer.expect("a connection");
    // Statements are prepared, and buffers have grown.
    runtime.block_on(times(&mut peer, operation, WARM_UP));
    count::mark();
    runtime.block_on(times(&mut peer, operation, operation.repetitions()));
    count::mark();
}

async fn times<P: Peer>(peer: &mut P, operation: Operation, count: i32) {
    for n in 0..count {
        let id = 1 + n * 7 % 2000;
        peer.run(operation, id).await.expect("an answer");
    }
}

const WARM_UP: i32 = 3;
