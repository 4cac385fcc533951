//! How many instructions a client executes for one statement, as valgrind counts them.
//!
//! A process of its own runs the statement on a warm connection, `COUNT` times and twice as often: the difference has
//! neither the login nor the first, slower statements in it.

use std::env;
use std::process::{Command, Stdio};

use crate::contenders::{Operation, Ours, Peer, Sqlx, Stock, TokioPostgres};

const PEERS: [&str; 4] = ["ours", "AsyncPgConnection", "tokio-postgres", "sqlx"];

/// Prints the instructions of every operation, with every peer.
pub fn table(url: &str) {
    println!("| | {} |", PEERS.join(" | "));
    println!("|---|{}", "---|".repeat(PEERS.len()));
    for operation in Operation::ALL {
        let cells = PEERS.map(|peer| {
            let arguments = |count: u32| {
                ["run", peer, operation.name(), &count.to_string(), url].map(String::from)
            };
            let counted = difference(&arguments(COUNT), &arguments(2 * COUNT));
            (counted / u64::from(COUNT)).to_string()
        });
        println!("| {} | {} |", operation.name(), cells.join(" | "));
    }
}

/// Returns how many more instructions this program executes with `twice` for its arguments than with `once`.
pub fn difference(once: &[String], twice: &[String]) -> u64 {
    counted(twice) - counted(once)
}

fn counted(arguments: &[String]) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(env::current_exe().expect("its own path"));
    valgrind.args(arguments);
    let ran = valgrind.stdin(Stdio::null()).output();
    let ran = ran.expect("valgrind is installed");
    let words = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{words}");
    let collected = words.split("Collected : ").nth(1);
    let collected = collected.and_then(|rest| rest.split_whitespace().next());
    let collected = collected.and_then(|number| number.parse().ok());
    collected.expect("valgrind tells the instructions")
}

/// Runs an operation `count` times, on one thread.
pub fn run(peer: &str, operation: &str, count: &str, url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut operations = Operation::ALL.into_iter();
    let operation = operations.find(|known| known.name() == operation);
    let operation = operation.expect("a known operation");
    let count = count.parse().expect("a number");
    runtime.block_on(async {
        match peer {
            "ours" => repeat::<Ours>(operation, count, url).await,
            "AsyncPgConnection" => repeat::<Stock>(operation, count, url).await,
            "tokio-postgres" => repeat::<TokioPostgres>(operation, count, url).await,
            "sqlx" => repeat::<Sqlx>(operation, count, url).await,
            unknown => panic!("no peer is called {unknown}"),
        }
    });
}

async fn repeat<P: Peer>(operation: Operation, count: i32, url: &str) {
    let mut peer = P::connect(url).await;
    for n in 0..count {
        peer.run(operation, 1 + n * 7 % 2000).await;
    }
}

const COUNT: u32 = 300;
