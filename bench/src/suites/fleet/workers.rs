//! Ten thousand connections to one PgBouncer, held by four processes, each used now and then.

use std::fs;
use std::iter;
use std::process;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use neon_sim::NeonSim;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls, Statement};

use super::super::statements::book;
use super::super::{on_runtime, turns};
use super::children::{Child, next_order, tell};
use crate::count;
use crate::pools::{Bb8, Configuration, LOOK_UP, Ours, Pool, Settings, Sqlx, fill};
use crate::report::{Table, Unit};
use crate::stand_in;
use crate::stats::percentile;

/// PgBouncer's `max_client_conn` on Neon.
const CONNECTIONS: usize = 10_000;
const PROCESSES: usize = 4;
const MAX_SIZE: usize = 10;
/// For all but the connections.
const OTHER_FILES: usize = 500;
/// The pools of a process that are filled at a time.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;
/// How long the connections are used in each, and how often by each process.
const USED: Duration = Duration::from_millis(800);
const EVERY: Duration = Duration::from_millis(4);
/// A look-up that takes longer has failed.
const LATEST: Duration = Duration::from_secs(5);

const NAMES: [&str; 4] = ["diesel-neon", "tokio-postgres", "bb8, diesel-async", "sqlx"];

/// The names of the parts.
pub const ALL: &str = "connections";
pub const HOLD: &str = "hold";

/// What was seen of an arm.
#[derive(Debug, Deserialize, Serialize)]
struct Seen {
    connections: usize,
    /// Until all were open.
    opening: f64,
    client_bytes: f64,
    pgbouncer_bytes: f64,
    /// Of each round.
    waits: Vec<Vec<f64>>,
    failed: usize,
}

/// What a process tells once its connections are open.
#[derive(Debug, Deserialize, Serialize)]
struct Held {
    connections: usize,
    /// What the process has grown by.
    bytes: f64,
}

/// What a process tells once it has used them, in each round.
#[derive(Debug, Deserialize, Serialize)]
struct Used {
    waits: Vec<f64>,
    failed: usize,
}

pub async fn table() -> Table {
    // The servers' limits are those of the process that starts them.
    let mut part = Child::start_with_many_files(&[ALL]);
    let mut arms: Vec<Seen> = Vec::new();
    for _ in NAMES {
        arms.push(part.told().await);
    }
    let mut table = Table::new("connections", "", &NAMES).text(TEXT);
    let once = |table: &mut Table, what: &str, unit, value: fn(&Seen) -> f64| {
        let values: Vec<_> = arms.iter().map(|seen| Some(value(seen))).collect();
        table.measured_once(what, unit, &values);
    };
    once(&mut table, "connections open", Unit::None, |seen| {
        seen.connections as f64
    });
    let failed = "look-ups that failed";
    once(&mut table, failed, Unit::Failures, |seen| {
        seen.failed as f64
    });
    let mut row = |what: &str, share| {
        let rounds = arms.iter().map(|seen| {
            let rounds = seen.waits.iter();
            rounds.filter_map(|waits| percentile(&mut waits.clone(), share))
        });
        let rounds: Vec<Vec<f64>> = rounds.map(Iterator::collect).collect();
        table.measured(what, Unit::Seconds, &rounds);
    };
    row("a look-up, median", 0.5);
    row("99th percentile", 0.99);
    let memory = "memory of the client by connection";
    once(&mut table, memory, Unit::Bytes, |seen| {
        seen.client_bytes / seen.connections as f64
    });
    let memory = "memory of PgBouncer by connection";
    once(&mut table, memory, Unit::Bytes, |seen| {
        seen.pgbouncer_bytes / seen.connections as f64
    });
    once(&mut table, "until all are open", Unit::Seconds, |seen| {
        seen.opening
    });
    table
}

/// Measures all arms, and tells what was seen of each.
pub fn run_all() {
    on_runtime(async {
        let mut arms = Vec::new();
        let mut poolers = Vec::new();
        for arm in 0..NAMES.len() {
            arms.push(Arm::open(arm, &mut poolers).await);
        }
        for round in 0..ROUNDS {
            for arm in turns(round, arms.len()) {
                arms[arm].take_turn().await;
            }
        }
        for arm in arms {
            tell(&arm.seen);
        }
    });
}

/// What holds the connections of an arm, and what was seen of it.
struct Arm {
    children: Vec<Child>,
    seen: Seen,
    _neon: NeonSim,
}

impl Arm {
    /// Opens an arm's connections; `poolers` are the processes of the PgBouncers until now.
    async fn open(arm: usize, poolers: &mut Vec<u32>) -> Self {
        let builder = stand_in::builder().never_suspend();
        // It takes 4 ms of one core to ask for a password.
        let builder = builder.pgbouncer_settings([("auth_type", "trust")]);
        let neon: NeonSim = builder.start().await.expect("the stand-in for Neon starts");
        neon.sql(stand_in::SCHEMA).await.expect("tables");
        let pgbouncer = pgbouncer(poolers);
        poolers.push(pgbouncer);
        let (before, files) = (resident(pgbouncer), open(pgbouncer));
        let most = CONNECTIONS.min(open_files().saturating_sub(OTHER_FILES));
        let pools = (most / PROCESSES / MAX_SIZE).to_string();
        let (url, number, began) = (neon.pgbouncer_url(), arm.to_string(), Instant::now());
        let start = |_| Child::start(&[HOLD, &number, &pools], &url);
        let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
        let held: Vec<Held> = join_all(children.iter_mut().map(Child::told)).await;
        let opening = began.elapsed().as_secs_f64();
        let connections = held.iter().map(|held| held.connections).sum();
        let opened_files = open(pgbouncer) - files;
        assert!(
            opened_files >= connections,
            "PgBouncer has {opened_files} connections"
        );
        let seen = Seen {
            connections,
            opening,
            client_bytes: held.iter().map(|held| held.bytes).sum(),
            pgbouncer_bytes: resident(pgbouncer) - before,
            waits: Vec::new(),
            failed: 0,
        };
        Self {
            children,
            seen,
            _neon: neon,
        }
    }

    async fn take_turn(&mut self) {
        let children = &mut self.children;
        join_all(children.iter_mut().map(|child| child.order("use"))).await;
        let used: Vec<Used> = join_all(children.iter_mut().map(Child::told)).await;
        self.seen.failed += used.iter().map(|used| used.failed).sum::<usize>();
        let waits = used.into_iter().flat_map(|used| used.waits);
        self.seen.waits.push(waits.collect());
    }
}

/// Returns the process of the PgBouncer that this process has started last.
fn pgbouncer(earlier: &[u32]) -> u32 {
    let processes = fs::read_dir("/proc").expect("processes");
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |number: &u32| {
        let arguments = fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
        // Its stand-in may have started it by way of others.
        let mut ancestors = iter::successors(parent(*number), |number| parent(*number));
        arguments.trim_end_matches('\0').ends_with("/pgbouncer.ini")
            && ancestors.any(|ancestor| ancestor == process::id())
    };
    let others = numbers.filter(|number| !earlier.contains(number));
    let found: Vec<u32> = others.filter(is_it).collect();
    assert_eq!(found.len(), 1, "one PgBouncer: {found:?}");
    found[0]
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Returns a process's resident memory, in bytes.
fn resident(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: f64 = kilobytes.and_then(|n| n.parse().ok()).expect("a size");
    kilobytes * 1024.0
}

/// Returns how many files a process has open.
fn open(process: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{process}/fd"));
    files.expect("a process of this user's").count()
}

/// Returns how many files this process may have open.
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX)
}

/// Holds the connections of one process.
pub fn run_part(arm: &str, pools: &str) {
    let pools: usize = pools.parse().expect("a number");
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        match arm {
            "0" => hold::<Ours>(pools).await,
            "1" => hold_clients(pools * MAX_SIZE).await,
            "2" => hold::<Bb8>(pools).await,
            _ => hold::<Sqlx>(pools).await,
        }
    });
}

async fn hold<P: Pool>(pools: usize) {
    let url = count::url();
    let before = resident(process::id());
    let filled = stream::iter(0..pools).map(|_| async {
        let settings = Settings {
            configuration: Configuration::Default,
            max_size: MAX_SIZE as u32,
            patience: PATIENCE,
        };
        let pool = P::build(&url, settings).await;
        fill(&pool, MAX_SIZE).await;
        pool
    });
    let filled: Vec<P> = filled.buffer_unordered(AT_ONCE).collect().await;
    tell_held(pools * MAX_SIZE, before);
    loop {
        next_order().await;
        use_now_and_then(|id| {
            let pool = filled[fastrand::usize(0..filled.len())].clone();
            async move { pool.look_up(id).await.ok() }
        })
        .await;
    }
}

/// The floor: clients without a pool, each with its prepared statement.
async fn hold_clients(connections: usize) {
    let url = count::url();
    let before = resident(process::id());
    let opened = stream::iter(0..connections).map(|_| async {
        let (client, driver) = tokio_postgres::connect(&url, NoTls)
            .await
            .expect("a client");
        tokio::spawn(driver);
        let statement = client.prepare(LOOK_UP).await.expect("a statement");
        let client = (client, statement);
        assert_eq!(look_up(&client, 1).await, Some(1));
        client
    });
    let at_once = AT_ONCE * MAX_SIZE;
    let opened: Vec<_> = opened.buffer_unordered(at_once).collect().await;
    tell_held(connections, before);
    let opened: &'static [_] = Vec::leak(opened);
    loop {
        next_order().await;
        use_now_and_then(|id| look_up(&opened[fastrand::usize(0..opened.len())], id)).await;
    }
}

async fn look_up((client, statement): &(Client, Statement), id: i32) -> Option<i32> {
    let row = client.query_one(statement, &[&id]).await.ok()?;
    // All of the row is read, as by the pools.
    Some(book(&row).0)
}

fn tell_held(connections: usize, before: f64) {
    tell(&Held {
        connections,
        bytes: resident(process::id()) - before,
    });
}

/// Looks books up, each on a connection of its own, at a steady rate.
async fn use_now_and_then<F>(look_up: impl Fn(i32) -> F)
where
    F: Future<Output = Option<i32>> + Send + 'static,
{
    let began = Instant::now();
    let mut look_ups = tokio::task::JoinSet::new();
    let mut next = Duration::ZERO;
    while next < USED {
        sleep(next.saturating_sub(began.elapsed())).await;
        next += EVERY;
        let id = fastrand::i32(1..2000);
        let found = look_up(id);
        look_ups.spawn(async move {
            let began = Instant::now();
            let found = timeout(LATEST, found).await.ok().flatten()?;
            assert_eq!(found, id, "another book than was looked up");
            Some(began.elapsed().as_secs_f64())
        });
    }
    let ended = look_ups.join_all().await;
    let waits: Vec<f64> = ended.iter().copied().flatten().collect();
    tell(&Used {
        failed: ended.len() - waits.len(),
        waits,
    });
}

const TEXT: &str = "\
**As many connections as Neon's PgBouncer takes**, 10,000, held by four processes at once, or as many as the machine's limit on open files \
allows. They are made without TLS and without a password, straight to PgBouncer, by pools of ten (tokio-postgres: by no pool), and each is used once. Then each \
process looks 250 books up in a second, each on another pool, in five rounds that the clients take in turns while the others' connections idle: what is told as \
failed took more than five seconds. The memory is what the \
processes grow by until all connections are open, divided by their number; that and the time are measured once:";
