//! How often a client waits for the server's answer: counted between the two, since on a long way it is all that counts.

use std::time::Duration;

use diesel::QueryDsl;
use diesel_async::RunQueryDsl;
use diesel_neon::http::HttpConnection;
use neon_sim::NeonSim;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::dial::Failed;
use super::on_runtime;
use super::relay::Relay;
use super::statements::operations::{Operation, Peer};
use super::statements::{Ours, Sqlx, Stock, TokioPostgres, Typed};
use crate::each_pool;
use crate::plot::Bars;
use crate::pools::{self, Configuration, Pool, Settings};
use crate::report::{Chapter, LIMIT, PlotFile, Table, Unit};
use crate::schema::{Book, books};
use crate::stand_in::{self, SCHEMA};
use crate::stats::percentile;

pub fn run() -> Chapter {
    on_runtime(async {
        let neon = stand_in::start().await;
        neon.sql(SCHEMA).await.expect("the tables");
        // The pools rest meanwhile.
        let [as_it_comes, serverless] = [Configuration::Default, Configuration::Serverless]
            .map(|configuration| checkouts(&neon, configuration));
        let connects = connects(&neon).await;
        let direct = statements(&neon, "direct", DIRECT, &neon.url()).await;
        let pooled = statements(&neon, "pooled", POOLED, &neon.pooled_url()).await;
        let plot = plot(&[&connects, &direct]);
        let tables = vec![
            connects,
            direct,
            pooled,
            checkout_table("checkout", CHECKOUT, as_it_comes).await,
            checkout_table("checkout, serverless", SERVERLESS, serverless).await,
        ];
        Chapter {
            suite: "flights".into(),
            title: "Flights".into(),
            text: text(),
            tables,
            plots: vec![plot],
        }
    })
}

/// The flights that no client can do without, by what is in each.
const OVER_SSL_REQUEST: &[&str] = &[
    "SSLRequest",
    "TLS's first message",
    "its last with the startup message",
    "SCRAM's first message",
    "its last with the statement",
];
/// The same, but for the first.
const OVER_DIRECT_TLS: &[&str] = OVER_SSL_REQUEST.split_at(1).1;
const OVER_WEBSOCKET: &[&str] = &[
    "TLS's first message",
    "its last with the request for the WebSocket, the startup message, the password and the statement",
];
const OVER_HTTPS: &[&str] = &[
    "TLS's first message",
    "its last with the request that has the statement in it",
];

/// How a new connection gets to its first row.
async fn connects(neon: &NeonSim) -> Table {
    let mut table = Table::new("connect", "connect and first look-up", &CONNECTING).text(CONNECT);
    let port = neon.port();
    for (what, negotiation, least) in [
        ("TCP, SSLRequest", "postgres", OVER_SSL_REQUEST),
        ("TCP, direct TLS", "direct", OVER_DIRECT_TLS),
    ] {
        let url = format!("{}&sslnegotiation={negotiation}", neon.url());
        let mut counts = vec![
            connect::<Ours>(port, &url).await,
            connect::<Ours>(port, &format!("{url}&pipeline_login=true")).await,
            connect::<Stock<true>>(port, &url).await,
            connect::<TokioPostgres>(port, &url).await,
            connect::<Typed>(port, &url).await,
        ];
        // It has no setting for that, and asks by SSLRequest.
        counts.push(match negotiation {
            "postgres" => connect::<Sqlx<true>>(port, &url).await,
            _ => None,
        });
        counts.push(Some(least.len() as f64));
        table.counted(what, Unit::Count, &counts);
    }
    let port = neon.https_port();
    let url = neon.websocket_url();
    let ours = connect::<Ours>(port, &url).await;
    let pipelined = connect::<Ours>(port, &format!("{url}&pipeline_login=true")).await;
    let least = |flights: &[&str]| Some(flights.len() as f64);
    let counts = [
        ours,
        pipelined,
        None,
        None,
        None,
        None,
        least(OVER_WEBSOCKET),
    ];
    table.counted("WebSocket", Unit::Count, &counts);
    let ours = request(port, &neon.https_url()).await;
    let counts = [ours, None, None, None, None, None, least(OVER_HTTPS)];
    table.counted("HTTPS", Unit::Count, &counts);
    table
}

const CONNECTING: [&str; 7] = [
    "diesel-neon",
    "diesel-neon, `pipeline_login`",
    "AsyncPgConnection",
    "tokio-postgres",
    "tokio-postgres, `query_typed`",
    "sqlx",
    LIMIT,
];

/// What a server sends at once may come in two pieces where the machine is busy, and has a client answer twice.
const CONNECTS: usize = 5;

async fn connect<P: Peer>(port: u16, url: &str) -> Option<f64> {
    let mut counts = Vec::new();
    for _ in 0..CONNECTS {
        counts.push(connect_once::<P>(port, url).await);
    }
    percentile(&mut counts, 0.5)
}

async fn connect_once<P: Peer>(port: u16, url: &str) -> f64 {
    let relay = Relay::to(port).await;
    let url = relay.instead_of(port, url);
    let work = async {
        let mut peer = P::connect(&url).await?;
        peer.run(Operation::LookUp, 1).await?;
        Ok(peer)
    };
    let (count, peer): (f64, Result<P, Failed>) = relay.count(work).await;
    peer.unwrap_or_else(|error| panic!("{error}"));
    count
}

async fn request(port: u16, url: &str) -> Option<f64> {
    let mut counts = Vec::new();
    for _ in 0..CONNECTS {
        counts.push(request_once(port, url).await);
    }
    percentile(&mut counts, 0.5)
}

async fn request_once(port: u16, url: &str) -> f64 {
    let relay = Relay::to(port).await;
    let mut connection = HttpConnection::new(relay.instead_of(port, url)).expect("a URL");
    let work = books::table.find(1).get_result(&mut connection);
    let (count, book) = relay.count(work).await;
    let book: Book = book.expect("an answer");
    assert_eq!(book.id, 1);
    count
}

const ON_A_CONNECTION: [&str; 6] = [
    "diesel-neon",
    "AsyncPgConnection",
    "tokio-postgres",
    "tokio-postgres, `query_typed`",
    "sqlx",
    LIMIT,
];

/// What runs on a connection: its first statement, and others for the first time and again.
async fn statements(neon: &NeonSim, name: &str, text: &str, url: &str) -> Table {
    let port = neon.port();
    let arms = [
        again::<Ours>(port, url).await,
        again::<Stock<true>>(port, url).await,
        again::<TokioPostgres>(port, url).await,
        again::<Typed>(port, url).await,
        again::<Sqlx<true>>(port, url).await,
    ];
    let mut table = Table::new(name, "on a connection", &ON_A_CONNECTION).text(text);
    for (row, (what, least)) in rows().into_iter().enumerate() {
        let mut counts: Vec<_> = arms.iter().map(|arm| Some(arm[row])).collect();
        counts.push(Some(least));
        table.counted(&what, Unit::Count, &counts);
    }
    table
}

/// What runs on a connection, and how many flights it cannot do without.
const OPERATIONS: [(Operation, f64); 6] = [
    (Operation::LookUp, 1.0),
    (Operation::Update, 1.0),
    (Operation::Batch, 1.0),
    (Operation::SqlQuery, 1.0),
    (Operation::Transaction, 1.0),
    // What is written depends on what was read.
    (Operation::ReadAndUpdate, 2.0),
];

fn rows() -> Vec<(String, f64)> {
    let rows = OPERATIONS.map(|(operation, least)| {
        let name = operation.name();
        [(name.to_owned(), least), (format!("{name}, again"), least)]
    });
    rows.into_iter().flatten().collect()
}

/// Returns the flights of each operation, for the first time and for the third.
async fn again<P: Peer>(port: u16, url: &str) -> Vec<f64> {
    let relay = Relay::to(port).await;
    let peer = P::connect(&relay.instead_of(port, url)).await;
    let mut peer = peer.unwrap_or_else(|error| panic!("{error}"));
    let mut counts = Vec::new();
    for (operation, _) in OPERATIONS {
        for time in 1..=3 {
            let (count, done) = relay.count(peer.run(operation, 1)).await;
            done.expect("an answer");
            // The second may still prepare.
            if time != 2 {
                counts.push(count);
            }
        }
    }
    counts
}

/// How long a connection has rested, and what a checkout needs then.
const RESTS: [(u64, f64); 3] = [(0, 0.0), (1, 1.0), (60, 1.0)];

type Counts = [JoinHandle<Vec<f64>>; 6];

fn checkouts(neon: &NeonSim, configuration: Configuration) -> Counts {
    let (port, url) = (neon.port(), neon.url());
    each_pool!(P => tokio::spawn(checkout::<P>(configuration, port, url.clone())))
}

async fn checkout<P: Pool>(configuration: Configuration, port: u16, url: String) -> Vec<f64> {
    let relay = Relay::to(port).await;
    let settings = Settings {
        configuration,
        max_size: 1,
        patience: Duration::from_secs(10),
    };
    let pool = P::build(&relay.instead_of(port, &url), settings).await;
    let mut counts = Vec::new();
    for (rest, _) in RESTS {
        // Whatever the pool prepares for its checks is prepared.
        for _ in 0..2 {
            assert_eq!(pool.look_up(1).await, Ok(1));
        }
        sleep(Duration::from_secs(rest)).await;
        let (count, held) = relay.count(pool.hold(async {})).await;
        held.expect("a connection");
        counts.push(count);
    }
    counts
}

async fn checkout_table(name: &str, text: &str, counts: Counts) -> Table {
    let mut arms = Vec::new();
    for counts in counts {
        arms.push(counts.await.expect("no panic"));
    }
    let names: Vec<_> = pools::NAMES.into_iter().chain([LIMIT]).collect();
    let mut table = Table::new(name, "checkout", &names).text(text);
    for (row, (rest, least)) in RESTS.into_iter().enumerate() {
        let mut counts: Vec<_> = arms.iter().map(|arm| Some(arm[row])).collect();
        counts.push(Some(least));
        table.counted(&format!("after {rest} s"), Unit::Count, &counts);
    }
    table
}

/// The arms that both tables have.
const IN_PLOT: [&str; 5] = [
    "diesel-neon",
    "AsyncPgConnection",
    "tokio-postgres",
    "sqlx",
    LIMIT,
];
const BARS: [(&str, &str); 7] = [
    ("TCP, SSLRequest", "SSLRequest"),
    ("TCP, direct TLS", "direct TLS"),
    ("key look-up", "look-up"),
    ("key look-up, again", "again"),
    ("batch of 10 rows", "batch"),
    ("batch of 10 rows, again", "again"),
    ("transaction of one UPDATE, again", "transaction"),
];

fn plot(tables: &[&Table]) -> PlotFile {
    let groups = BARS.map(|(what, short)| {
        let values = IN_PLOT.map(|arm| {
            let mut found = tables.iter().filter_map(|table| table.median(what, arm));
            found.next()
        });
        (short.to_owned(), values.to_vec())
    });
    let bars = Bars {
        title: "Flights to the first row of a new connection, and of statements on it",
        y: "flights",
        names: &IN_PLOT,
        groups: &groups,
    };
    let path = "benchmarks/flights.svg";
    let file = stand_in::repository().join("docs").join(path);
    bars.write(&file).expect("a picture");
    PlotFile {
        path: path.into(),
        alt: "Bars: flights of connects and of statements, for each client".into(),
    }
}

fn text() -> String {
    let least = [
        ("Over SSLRequest", OVER_SSL_REQUEST),
        ("over a WebSocket", OVER_WEBSOCKET),
        ("over HTTPS", OVER_HTTPS),
    ];
    let least = least.map(|(way, flights)| format!("{way}: {}", flights.join(" | ")));
    format!(
        "{TEXT} What a connect cannot do without, a flight each: {}. Direct TLS saves the SSLRequest.",
        least.join("; ")
    )
}

const TEXT: &str = "\
A relay between client and server counts flights: bytes of the client behind bytes of the server, which it holds for a moment, so that what a client \
sends without waiting is one flight. TCP's own handshake is not among them, and neither is what nobody waits for. On a way of 30 ms each \
flight costs 30 ms, whatever the client does with the processor. Of five connects the median is told. The limit is what a client needs that is written for this one purpose by hand.";

const CONNECT: &str = "\
From nothing to the first row. `AsyncPgConnection` and sqlx prepare a statement before they run it, and so does tokio-postgres unless it is told the types; \
`AsyncPgConnection` sets the time zone and the encoding first. With `pipeline_login` the statement leaves with the login's last message:";
const DIRECT: &str = "\
Statements on a connection that is there, for the first and for the third time, on the direct endpoint. A transaction takes us one flight \
more than the limit, since a closure may yet fail when its last statement has been answered, and COMMIT comes after it:";
const POOLED: &str = "The same on the pooled endpoint, whose pooler tracks prepared statements:";
const CHECKOUT: &str = "\
A checkout by itself, of a connection that was used and has rested. deadpool-postgres asks nothing, and finds out with the statement. \
mobc with diesel-async's manager connects anew each time: asked whether a connection that comes back is valid, the manager answers whether it is broken. \
The limit is a question to a server that may have gone meanwhile. The pools are as they come:";
const SERVERLESS: &str = "The same, with what the pools have for a server that goes away:";
