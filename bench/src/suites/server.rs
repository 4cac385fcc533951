//! The example server, and the same API on other pools: what it costs to serve, and what fails while the compute suspends.

mod client;
pub mod example;
mod part;
mod peers;
mod process;
mod suspended;

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::client::{Client, Request};
use self::process::{Memory, Server};
use super::{on_runtime, turns};
use crate::pools::Configuration;
use crate::report::{Chapter, Table, Unit};
use crate::stand_in;
use crate::stats::percentile;

pub use self::part::run as run_part;

/// The servers whose speed is measured: a name, the pool's place among [`NAMES`], and how it is set up.
const SPEEDS: [(&str, usize, Configuration); 7] = [
    (NAMES[0], 0, Configuration::Default),
    (NAMES[1], 1, Configuration::Default),
    ("bb8 without its check", 1, Configuration::Unchecked),
    (NAMES[2], 2, Configuration::Default),
    ("deadpool without its check", 2, Configuration::Unchecked),
    (NAMES[3], 3, Configuration::Default),
    ("sqlx without its check", 3, Configuration::Unchecked),
];

/// The pools behind the servers.
const NAMES: [&str; 4] = [
    "diesel-neon",
    "bb8, diesel-async",
    "deadpool, diesel-async",
    "sqlx",
];

const CLIENTS: usize = 32;
const ROUNDS: usize = 11;
const SLICE: Duration = Duration::from_millis(400);
/// Of look-ups before anything is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// The books that there are to look up.
const BOOKS: usize = 2000;

/// The example's own tables, and books.
fn schema() -> String {
    let table = include_str!("../../../migrations/2026-01-05-090000_create_books/up.sql");
    format!(
        "{table} INSERT INTO books (title, author, publication_year) \
         SELECT 'Book ' || n, 'Author ' || n % 200, 1800 + n % 200 FROM generate_series(1, {BOOKS}) n; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC; \
         ANALYZE"
    )
}

pub fn run() -> Chapter {
    on_runtime(async {
        let speed = speed().await;
        let (failed, late, plot) = suspended::tables().await;
        Chapter {
            suite: "server".into(),
            title: "A server".into(),
            text: TEXT.into(),
            tables: vec![speed, failed, late],
            plots: vec![plot],
        }
    })
}

const TEXT: &str = "\
The example `axum_server`, and the same server on other pools: routes, validation, JSON, problem documents, limits and layers are the \
example's own files, without its page and its events; what differs is the pool and who asks it. The peers that speak Diesel run the \
example's queries, sqlx the same SQL by hand. Each is a process of its own with two workers and ten connections, over TLS to the direct \
endpoint. All else runs on the same machine: the clients, the stand-in's proxy and PostgreSQL.

Requests in a second are for the most part those that all that together can do. The processor time is the server's alone, and \
tells the pools apart. The peers ask the server before each request whether the connection works; ours does that only where it was quiet \
for half a second. sqlx asks once more when a connection comes back, and `AsyncPgConnection` prepares an INSERT each time. *Without its check* is a \
peer that asks nothing before a request, which is as fast as it gets, and hands out what has died. What is asked at the very moment of the suspension is lost with the connection: the \
example reads by `Pool::retry`, which asks again, and a write without an `Idempotency-Key` would fail. With the peers it is often the \
check that is lost, and they open another connection.";

const SPEED: &str = "\
32 clients, each with a connection that stays open, who ask again as soon as they have an answer. Each answer is checked: its status, \
and that it has the book that was asked for. The servers are one program with all pools in it; *memory* is that of the process with the \
parts of the program that it has touched, *of its own* what it has allocated since it began to listen.";

/// What clients ask for.
#[derive(Clone, Copy, Debug)]
enum Route {
    Show,
    Create,
}

impl Route {
    const ALL: [Self; 2] = [Self::Show, Self::Create];

    fn words(self) -> &'static str {
        match self {
            Self::Show => "`GET /books/{id}`",
            Self::Create => "`POST /books`",
        }
    }

    fn request(self, number: usize) -> Request {
        match self {
            Self::Show => Request::show(1 + number % BOOKS),
            Self::Create => Request::create(number),
        }
    }
}

/// What a server did in a slice.
struct Slice {
    per_second: f64,
    late: Option<f64>,
    processor: f64,
    /// Afterwards.
    memory: Memory,
}

async fn speed() -> Table {
    let neon = stand_in::start().await;
    neon.sql(&schema()).await.expect("tables");
    let url = neon.url();
    let servers = SPEEDS.map(|(_, arm, configuration)| Server::start(arm, configuration, &url));
    let servers = join_all(servers).await;
    let at_start: Vec<_> = servers.iter().map(Server::memory).collect();
    for server in &servers {
        slice(server, Route::Show, WARM_UP).await;
    }
    let mut table = Table::new("speed", "", &SPEEDS.map(|(name, ..)| name)).text(SPEED);
    let mut slices: [Vec<Slice>; SPEEDS.len()] = Default::default();
    for route in Route::ALL {
        slices = Default::default();
        for round in 0..ROUNDS {
            for arm in turns(round, SPEEDS.len()) {
                slices[arm].push(slice(&servers[arm], route, SLICE).await);
            }
        }
        let mut row = |what, unit, value: fn(&Slice) -> Option<f64>| {
            let of_arm = |all: &Vec<Slice>| all.iter().filter_map(value).collect();
            let rounds = slices.each_ref().map(of_arm);
            table.measured(&format!("{}: {what}", route.words()), unit, &rounds);
        };
        row("requests", Unit::PerSecond, |slice| Some(slice.per_second));
        row("99th percentile", Unit::Seconds, |slice| slice.late);
        row("processor time of a request", Unit::Seconds, |slice| {
            Some(slice.processor)
        });
    }
    let all = slices.each_ref();
    let all = all.map(|all| all.iter().map(|slice| slice.memory.all).collect());
    let own = slices.iter().zip(&at_start).map(|(slices, start)| {
        let grown = slices.iter().map(|slice| slice.memory.own - start.own);
        grown.collect()
    });
    table.measured("memory", Unit::Bytes, &all);
    table.measured("memory of its own", Unit::Bytes, &own.collect::<Vec<_>>());
    table
}

/// Has all clients ask a server for so long.
async fn slice(server: &Server, route: Route, time: Duration) -> Slice {
    let clients = (0..CLIENTS).map(|_| Client::connect(server.address));
    let clients = join_all(clients).await;
    let (processor, began) = (server.processor_time(), Instant::now());
    let asking = clients.into_iter().enumerate().map(|(place, client)| {
        let mut client = client.expect("a connection");
        tokio::spawn(async move {
            let mut took = Vec::new();
            let mut number = place * 61;
            while began.elapsed() < time {
                let request = route.request(number);
                let asked = Instant::now();
                let answer = client.ask(&request).await.expect("an answer");
                took.push(asked.elapsed().as_secs_f64());
                assert!(answer.is_right(), "{route:?}: {answer:?}");
                number += 1;
            }
            took
        })
    });
    let took = join_all(asking).await;
    let elapsed = began.elapsed().as_secs_f64();
    let processor = server.processor_time() - processor;
    let mut took: Vec<f64> = took
        .into_iter()
        .flat_map(|took| took.expect("no panic"))
        .collect();
    let answers = took.len() as f64;
    Slice {
        per_second: answers / elapsed,
        late: percentile(&mut took, 0.99),
        processor: processor / answers,
        memory: server.memory(),
    }
}
