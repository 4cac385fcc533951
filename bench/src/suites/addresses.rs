//! A server with a dozen addresses: four answer no SYN, four accept and say nothing, three refuse, one works.

use std::process::Stdio;
use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseUrl, Pool};
use neon_sim::NeonSim;
use sqlx::Connection as _;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::broken::Addresses;
use super::broken::Behaviour::{self, Drops, LeadsTo, Refuses, Silent};
use super::on_runtime;
use crate::report::{Chapter, Table};
use crate::stand_in;

pub fn run() -> Chapter {
    let table = on_runtime(async { table(&stand_in::start().await).await });
    Chapter {
        suite: "addresses".into(),
        title: "A dozen addresses".into(),
        text: TEXT.into(),
        tables: vec![table],
        plots: Vec::new(),
    }
}

const TEXT: &str = "\
Of the twelve addresses of one host name four answer no SYN, four accept and say nothing, three refuse, and one leads to the server. \
Each has ten seconds to the answer to its first statement, in four orders. psql's time is that of a process. tokio-postgres and libpq \
try one address after another, without a limit unless the URL has a `connect_timeout`; tokio-postgres applies that to TCP alone, libpq to each address. A URL \
of sqlx has one host and no `hostaddr`, so that it is given the first address alone.";

/// Tries what each does with the addresses in several orders.
async fn table(neon: &NeonSim) -> Table {
    let works = LeadsTo(neon.port());
    let dozen = [
        vec![Drops; 4],
        vec![Silent; 4],
        vec![Refuses; 3],
        vec![works],
    ]
    .concat();
    let mut table = Table::new(
        "addresses",
        "the first addresses",
        &PEERS.map(|(name, ..)| name),
    );
    for (order, at) in [
        ("do not answer", 0),
        ("say nothing", 4),
        ("refuse", 8),
        ("work", 11),
    ] {
        let mut behaviours: Vec<Behaviour> = dozen.clone();
        behaviours.rotate_left(at);
        let mut cells = Vec::new();
        for (_, peer, parameter) in PEERS {
            let addresses = Addresses::new(&behaviours).await;
            let url = addresses.url(&neon.url(), &neon.host()) + parameter;
            let works = behaviours.iter().position(|one| *one == works);
            let sessions = || addresses.accepted()[works.unwrap_or_default()];
            cells.push(attempt(peer, &url, sessions).await);
        }
        table.words(order, cells);
    }
    table
}

#[derive(Clone, Copy)]
enum Peer {
    Ours,
    OursSingle,
    TokioPostgres,
    Sqlx,
    Libpq,
}

/// The peers, and what their URLs have at the end.
const PEERS: [(&str, Peer, &str); 7] = [
    ("`Pool::get`", Peer::Ours, ""),
    ("`Connection`", Peer::OursSingle, ""),
    ("tokio-postgres", Peer::TokioPostgres, ""),
    (
        "tokio-postgres, `connect_timeout=2`",
        Peer::TokioPostgres,
        SHORT,
    ),
    ("sqlx, the first address alone", Peer::Sqlx, ""),
    ("libpq (psql)", Peer::Libpq, ""),
    ("libpq (psql), `connect_timeout=2`", Peer::Libpq, SHORT),
];
/// The shortest that libpq takes.
const SHORT: &str = "&connect_timeout=2";

/// Returns how long the peer takes to its first answer, or what it fails with, and how many sessions it opens.
async fn attempt(peer: Peer, url: &str, sessions: impl Fn() -> usize) -> String {
    let began = Instant::now();
    let connected = timeout(PATIENCE, connect(peer, url)).await;
    let took = began.elapsed();
    let sessions = sessions();
    match connected {
        Ok(Ok(())) => format!("{} ms, {sessions} sessions", took.as_millis()),
        Ok(Err(error)) => format!("fails after {} ms: {error}", took.as_millis()),
        Err(_) => format!("nothing in {PATIENCE:?}"),
    }
}

async fn connect(peer: Peer, url: &str) -> Result<(), String> {
    fn text(error: impl ToString) -> String {
        error.to_string().replace('|', "/").replace('\n', " ")
    }
    let parsed = DatabaseUrl::parse(url).map_err(text)?;
    match peer {
        Peer::Ours => {
            let pool = Pool::builder(parsed).build().map_err(text)?;
            let mut connection = pool.get().await.map_err(text)?;
            connection.batch_execute(STATEMENT).await.map_err(text)
        }
        Peer::OursSingle => {
            let mut connection = Connection::establish(url).await.map_err(text)?;
            connection.batch_execute(STATEMENT).await.map_err(text)
        }
        Peer::TokioPostgres => {
            let tls = parsed.to_rustls().map_err(text)?.ok_or("no TLS")?;
            let tls = MakeRustlsConnect::new(tls);
            let connected = parsed.to_tokio_postgres().connect(tls).await;
            let (client, driver) = connected.map_err(text)?;
            tokio::spawn(driver);
            client.batch_execute(STATEMENT).await.map_err(text)
        }
        Peer::Sqlx => {
            // It takes one host and no `hostaddr`.
            let host = &parsed.hosts()[0];
            let (address, port) = (host.address.expect("an address"), host.port);
            let (front, rest) = url.split_once('@').expect("a user");
            let database = rest.split(['/', '?']).nth(1).unwrap_or_default();
            let name = rest.split("host=").nth(1).unwrap_or_default();
            let endpoint = name.split('.').next().unwrap_or_default();
            let url = format!(
                "{front}@{address}:{port}/{database}?sslmode=require&options=endpoint%3D{endpoint}"
            );
            let mut connection = sqlx::PgConnection::connect(&url).await.map_err(text)?;
            let done = sqlx::raw_sql(STATEMENT).execute(&mut connection).await;
            done.map(drop).map_err(text)
        }
        Peer::Libpq => {
            let password = parsed.password().unwrap_or_default();
            // Others on the machine can read arguments.
            let url = url.replacen(&format!(":{password}@"), "@", 1);
            let mut psql = Command::new("psql");
            psql.args(["-X", "-c", STATEMENT, &url]).kill_on_drop(true);
            psql.env("PGPASSWORD", password);
            psql.stdin(Stdio::null()).stdout(Stdio::null());
            let output = psql.stderr(Stdio::piped()).output().await.map_err(text)?;
            match output.status.success() {
                true => Ok(()),
                false => Err(text(String::from_utf8_lossy(&output.stderr))),
            }
        }
    }
}

/// What each says first.
const STATEMENT: &str = "SELECT 1";
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(10);
