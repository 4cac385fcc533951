//! How many instructions a client executes for one operation, as valgrind counts them, and how many system calls it makes, as strace
//! does: other work on the machine changes neither.
//!
//! A process for each client: what runs on its warm connection is between two marks.

use std::thread;

use tokio::runtime::Runtime;

use super::by_hand::ByHand;
use super::operations::{Operation, Peer};
use super::{ARMS, Ours, Sqlx, Stock, TokioPostgres};
use crate::count;
use crate::report::{LIMIT, Table, Unit};

/// The name of the part that has a process to itself.
pub const PART: &str = "statements";

pub fn instructions(url: &str) -> Table {
    let mut table = Table::new("instructions", "", &with_limit());
    for (operation, counts) in by_operation(count::instructions, url) {
        table.counted(operation.name(), Unit::Instructions, &counts);
    }
    table
}

pub fn system_calls(url: &str) -> Table {
    let mut table = Table::new("system calls", "", &with_limit());
    for (operation, counts) in by_operation(count::system_calls_between_marks, url) {
        table.measured_once(operation.name(), Unit::Count, &counts);
    }
    table
}

fn with_limit() -> Vec<&'static str> {
    ARMS.into_iter().chain([LIMIT]).collect()
}

/// Counts in a process with these arguments, from each mark to the next.
type Count = fn(&[String], &str) -> Option<Vec<f64>>;

fn by_operation(count: Count, url: &str) -> Vec<(Operation, Vec<Option<f64>>)> {
    let peers = with_limit();
    let count = |peer| move || count(&[PART.into(), String::from(peer)], url);
    let counts = thread::scope(|scope| {
        // As many at a time as there are cores, on the smallest machine.
        let mut counts = Vec::new();
        for two in peers.chunks(2) {
            let processes: Vec<_> = two.iter().map(|peer| scope.spawn(count(*peer))).collect();
            let joined = processes.into_iter().map(|one| one.join());
            counts.extend(joined.map(|one| one.expect("no panic")));
        }
        counts
    });
    // Of each peer, those of its operations; the ways to them are between.
    let mut counts: Vec<_> = counts
        .into_iter()
        .map(|counts| counts.unwrap_or_default().into_iter().step_by(2))
        .collect();
    let by_operation = Operation::ALL.into_iter().map(|operation| {
        let repetitions = f64::from(operation.repetitions());
        let by_peer = peers.iter().zip(&mut counts).map(|(peer, counts)| {
            let count = has(peer, operation).then(|| counts.next());
            Some(count?? / repetitions)
        });
        (operation, by_peer.collect())
    });
    by_operation.collect()
}

fn has(peer: &str, operation: Operation) -> bool {
    peer != "AsyncPgConnection" || Stock::<true>::has(operation)
}

/// Runs a client's operations on one thread, and is counted.
pub fn run(arguments: &[&str]) {
    count::end_with_input();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match arguments {
        ["diesel-neon"] => repeat::<Ours>(&runtime),
        ["AsyncPgConnection"] => repeat::<Stock<true>>(&runtime),
        ["tokio-postgres"] => repeat::<TokioPostgres>(&runtime),
        ["sqlx"] => repeat::<Sqlx<true>>(&runtime),
        [LIMIT] => repeat::<ByHand>(&runtime),
        unknown => panic!("no peer is called {unknown:?}"),
    }
}

fn repeat<P: Peer>(runtime: &Runtime) {
    let peer = runtime.block_on(P::connect(&count::url()));
    let mut peer = peer.expect("a connection");
    for operation in Operation::ALL.into_iter().filter(|one| P::has(*one)) {
        // Statements are prepared, and buffers have grown.
        runtime.block_on(times(&mut peer, operation, WARM_UP));
        count::mark();
        runtime.block_on(times(&mut peer, operation, operation.repetitions()));
        count::mark();
    }
}

async fn times<P: Peer>(peer: &mut P, operation: Operation, count: i32) {
    for n in 0..count {
        let id = 1 + n * 7 % 2000;
        peer.run(operation, id).await.expect("an answer");
    }
}

const WARM_UP: i32 = 3;
