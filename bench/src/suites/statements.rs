//! One statement after another on connections that are there: what a client makes of a server's time.

mod blocking;
mod by_hand;
mod client;
mod counted;
pub mod operations;
mod race;
mod with_diesel;
mod with_sqlx;
mod with_tokio_postgres;
mod with_tokio_postgres_typed;

use std::time::{Duration, Instant};

use neon_sim::NeonSim;
use tokio::task::block_in_place;

pub use self::counted::{PART, run as run_part};
use self::operations::{CLEAN, Operation, TABLES};
use self::race::{Arm, CONNECTIONS};
pub use self::with_diesel::{Ours, Stock};
pub use self::with_sqlx::Sqlx;
pub use self::with_tokio_postgres::{TokioPostgres, book};
pub use self::with_tokio_postgres_typed::Typed;
use super::{on_runtime, tell};
use crate::plot::Bars;
use crate::report::{Chapter, PlotFile, Table};
use crate::stand_in::{self, SCHEMA};

pub fn run() -> Chapter {
    on_runtime(async {
        let mut tables = Vec::new();
        let neon = stand_in::start().await;
        let untracked = untracked().await;
        for neon in [&neon, &untracked] {
            for sql in [SCHEMA, TABLES] {
                neon.sql(sql).await.expect("the tables");
            }
        }
        const BOTH: &[usize] = &[1, CONNECTIONS];
        let routes = [
            ("plain", PLAIN, neon.postgres_url(), &WITHOUT_TLS[..]),
            ("TLS", TLS, neon.url(), &Operation::ALL),
            ("pooled", POOLED, neon.pooled_url(), &Operation::ALL),
        ];
        let mut bars = Vec::new();
        for (name, text, url, operations) in routes {
            let mut arms = arms(&url, CONNECTIONS).await;
            let empty = Table::new(name, HEAD, &ARMS).text(text);
            let (table, rates) = race_all(operations, BOTH, &mut arms, &neon, empty).await;
            tables.push(table);
            bars = rates;
        }
        let plot = plot(&bars);
        let mut many = arms(&neon.pooled_url(), MANY_CONNECTIONS).await;
        let empty = Table::new("pooled, 64", HEAD, &ARMS).text(POOLED_MANY);
        let few = &[Operation::LookUp, Operation::Insert, Operation::Transaction];
        let (table, _) = race_all(few, &[MANY_CONNECTIONS], &mut many, &neon, empty).await;
        tables.push(table);
        drop(many);
        let url = untracked.pooled_url();
        for (name, text, connections, latency) in [
            ("untracked", UNTRACKED, BOTH, Duration::ZERO),
            ("untracked, 2 ms", UNTRACKED_FAR, &[1], LATENCY),
        ] {
            untracked.set_latency(latency);
            let mut arms = arms_for_untracked(&url).await;
            let empty = Table::new(name, HEAD, &ARMS_UNTRACKED).text(text);
            let all = &Operation::ALL;
            let (table, _) = race_all(all, connections, &mut arms, &untracked, empty).await;
            tables.push(table);
        }
        drop(untracked);
        neon.set_latency(LATENCY);
        for (name, text, url) in [
            ("TLS, 2 ms", FAR, neon.url()),
            ("pooled, 2 ms", POOLED_FAR, neon.pooled_url()),
        ] {
            let mut arms = arms(&url, CONNECTIONS).await;
            let empty = Table::new(name, HEAD, &ARMS).text(text);
            let (table, _) = race_all(&Operation::ALL, &[1], &mut arms, &neon, empty).await;
            tables.push(table);
        }
        neon.set_latency(Duration::ZERO);
        let (plain, url) = (neon.postgres_url(), neon.url());
        tables.push(block_in_place(|| {
            timed("instructions", || {
                counted::instructions(&plain).text(INSTRUCTIONS)
            })
        }));
        tables.push(block_in_place(|| {
            timed("system calls", || {
                counted::system_calls(&plain).text(SYSTEM_CALLS)
            })
        }));
        tables.push(block_in_place(|| {
            timed("client", || client::table(CLIENT, &plain))
        }));
        tables.push(block_in_place(|| {
            timed("blocking", || {
                blocking::table("blocking", BLOCKING, &url, &[1, 8, 64])
            })
        }));
        neon.set_latency(LATENCY);
        tables.push(block_in_place(|| {
            timed("blocking, 2 ms", || {
                blocking::table("blocking, 2 ms", BLOCKING_FAR, &url, &[8])
            })
        }));
        Chapter {
            suite: "statements".into(),
            title: "Statements".into(),
            text: TEXT.into(),
            tables,
            plots: vec![plot],
        }
    })
}

/// A pooler that does not track prepared statements, whose servers take turns, as they do among other clients.
async fn untracked() -> NeonSim {
    let builder = stand_in::builder().never_suspend().pgbouncer_settings([
        ("max_prepared_statements", "0"),
        ("min_pool_size", "8"),
        ("server_round_robin", "1"),
    ]);
    builder.start().await.expect("the stand-in for Neon starts")
}

const ARMS: [&str; 4] = ["diesel-neon", "AsyncPgConnection", "tokio-postgres", "sqlx"];

async fn arms(url: &str, connections: usize) -> Vec<Arm> {
    vec![
        Arm::connect::<Ours>(url, connections).await,
        Arm::connect::<Stock<true>>(url, connections).await,
        Arm::connect::<TokioPostgres>(url, connections).await,
        Arm::connect::<Sqlx<true>>(url, connections).await,
    ]
}

const ARMS_UNTRACKED: [&str; 7] = [
    "diesel-neon",
    "AsyncPgConnection",
    "AsyncPgConnection without its cache",
    "tokio-postgres",
    "tokio-postgres, `query_typed`",
    "sqlx",
    "sqlx without its cache",
];

async fn arms_for_untracked(url: &str) -> Vec<Arm> {
    vec![
        Arm::connect::<Ours>(url, CONNECTIONS).await,
        Arm::connect::<Stock<true>>(url, CONNECTIONS).await,
        Arm::connect::<Stock<false>>(url, CONNECTIONS).await,
        Arm::connect::<TokioPostgres>(url, CONNECTIONS).await,
        Arm::connect::<Typed>(url, CONNECTIONS).await,
        Arm::connect::<Sqlx<true>>(url, CONNECTIONS).await,
        Arm::connect::<Sqlx<false>>(url, CONNECTIONS).await,
    ]
}

type Rates = Vec<(Operation, Vec<Option<f64>>)>;

/// Fills a route's table, and returns each operation's rates with the first number of connections.
async fn race_all(
    operations: &[Operation],
    connections: &[usize],
    arms: &mut [Arm],
    neon: &NeonSim,
    mut table: Table,
) -> (Table, Rates) {
    let began = Instant::now();
    let mut rates = Vec::new();
    for &operation in operations {
        let rows = race::rows(operation, connections, arms, &mut table);
        rates.push((operation, rows.await));
        neon.sql(CLEAN).await.expect("empty tables");
    }
    tell(&table.name, began);
    (table, rates)
}

fn timed(name: &str, table: impl FnOnce() -> Table) -> Table {
    let began = Instant::now();
    let table = table();
    tell(name, began);
    table
}

const MANY_CONNECTIONS: usize = 64;
/// Where TLS costs more than a little: the shortest, and those with many bytes.
const WITHOUT_TLS: [Operation; 3] = [Operation::LookUp, Operation::ManyRows, Operation::CopyIn];
const HEAD: &str = "operation, connections";
/// One way.
const LATENCY: Duration = Duration::from_millis(1);

fn plot(rates: &Rates) -> PlotFile {
    let group = |(operation, rates): &(Operation, Vec<Option<f64>>)| {
        let ours = rates[0].unwrap_or(1.0);
        let shares = rates.iter().map(|rate| Some((*rate)? / ours));
        (short(*operation).to_owned(), shares.collect())
    };
    let groups: Vec<_> = rates.iter().map(group).collect();
    let bars = Bars {
        title: "Pooled endpoint, TLS, one connection",
        y: "per second, diesel-neon = 1",
        names: &ARMS,
        groups: &groups,
    };
    let path = "benchmarks/statements-pooled.svg";
    let file = stand_in::repository().join("docs").join(path);
    bars.write(&file).expect("a picture");
    PlotFile {
        path: path.into(),
        alt: "Bars: what each client gets done in a second, as a share of what this crate does, for each operation".into(),
    }
}

/// What fits below bars.
fn short(operation: Operation) -> &'static str {
    match operation {
        Operation::LookUp => "look-up",
        Operation::Insert => "INSERT",
        Operation::Update => "update",
        Operation::Batch => "batch",
        Operation::Join => "join",
        Operation::SqlQuery => "sql_query",
        Operation::Transaction => "transaction",
        Operation::ReadAndUpdate => "of two",
        Operation::ManyRows => "10,000 rows",
        Operation::CopyIn => "COPY",
        Operation::Pipeline => "100 at once",
    }
}

const TEXT: &str = "\
Each client runs the same operation again and again, on one connection and on eight at the same time, in slices that take turns. All read \
what comes back into the same types, and look at it. tokio-postgres runs statements that it has prepared; `AsyncPgConnection` and sqlx \
prepare theirs and keep them, and so do we. COPY is what `AsyncPgConnection` does not have. Of a hundred look-ups at once, sqlx makes one after \
another, since it has no pipeline; the others send all before they read. A statement's time is for the most part the server's, on this \
machine too, so that the ratios of times lie nearer to one than those of instructions. `sql_query` is Diesel's; the other \
two run the same SQL by their own ways.

Where we are behind: Diesel builds the SQL of each query, and we find the statement by it; tokio-postgres and sqlx are told which statement \
it is. An INSERT has more to build than a look-up, a batch more than that. `AsyncPgConnection`, which does the same work for Diesel, \
takes about twice our instructions. Of a hundred statements at once, whoever reads an answer wakes all that wait for others; in tokio-postgres a \
task of its own wakes the one. A piece of a COPY takes a buffer of its size, which we free \
again; tokio-postgres keeps it with the connection. sqlx leaves Nagle's algorithm on, and has no setting for it: the few bytes \
that end a COPY wait until the server has acknowledged those before them, which it does at once or 40 ms later. Which of the two is chance, mostly \
the same for several COPYs in a row: beside sqlx, the ratio of a COPY on one connection differs from run to run, without TLS too, and tells of that \
wait, not of how fast sqlx copies. Behind a pooler that does not track, sqlx is faster for as long as its names happen to meet its own server.";

const PLAIN: &str = "PostgreSQL on loopback, without TLS and without a proxy; what differs most from the next table:";
const TLS: &str = "The direct endpoint, with TLS:";
const POOLED: &str =
    "The pooled endpoint, with TLS. The pooler tracks prepared statements, as Neon's does:";
const POOLED_MANY: &str = "The same, on 64 connections at the same time:";
const UNTRACKED: &str = "\
The same behind a pooler that does not track prepared statements, and hands each transaction to the next of its servers. We find that out, and send \
statements without names, and each when the one in front of it is answered: a pooler as old as one that cannot track (PgBouncer before 1.21) mixes \
what comes sooner with other clients' messages. The peers run as they come, and in the way that they have for such poolers: `AsyncPgConnection` and sqlx without their \
caches (sqlx with `persistent(false)`, too), and tokio-postgres with `query_typed`. What fails, fails with the error of the first try:";
const UNTRACKED_FAR: &str = "The same, with round trips of 2 ms:";
const FAR: &str = "The direct endpoint, with TLS, and round trips of 2 ms, where what counts is how many an operation takes:";
const POOLED_FAR: &str = "The pooled endpoint, with TLS, and the same round trips:";
const INSTRUCTIONS: &str = "\
The instructions that a client executes for one operation, as valgrind counts them, on loopback without TLS, on one connection for all \
operations. What else the machine does changes nothing here. The limit is a client that is written by hand for these statements \
alone: it has a thread to itself, sends messages that were made before, with the values written into them, and reads the answers into the same \
types. What is above it is the price of a client that takes any statement, and shares its thread:";
const SYSTEM_CALLS: &str = "\
The system calls of the same, as strace counts them. Whoever shares a thread asks the system which connection has an answer; the limit \
waits for the only one:";
const CLIENT: &str = "\
What a client takes of its own machine, on one thread, on loopback without TLS: memory, and the time of the processor for one operation, \
that of the system included. Each connection has done all operations before; what it needs for one is above what it keeps:";
const BLOCKING: &str = "\
Synchronous Diesel, as apps hold it: a pool of ten connections, and threads that check one out for each operation. r2d2 asks the server at \
each checkout, as it comes; we ask when a connection was quiet for half a second. The direct endpoint, with TLS:";
const BLOCKING_FAR: &str = "The same, with round trips of 2 ms:";
