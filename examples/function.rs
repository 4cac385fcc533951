//! A handler as a serverless function has it: it starts for one request, connects, and is gone. Times it over each way to
//! the server, on a stand-in for Neon that is 10, 30 and 100 ms away; the result is a table in Markdown.
//!
//! `cargo run --example function --features http,websocket`, or `-- 1` for one invocation each instead of five.

use std::error::Error;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use diesel_neon::http::HttpConnection;
use diesel_neon::{Policy, Pool, RetryError};
use neon_sim::NeonSim;

use self::schema::visits;

mod schema {
    diesel::table! {
        visits (id) {
            id -> Integer,
            page -> Text,
        }
    }
}

/// One invocation: a pool of one connection, which tries again if the compute is still waking.
fn pool(url: &str) -> Result<Pool, Box<dyn Error>> {
    let policy = Policy::builder().max_size(1);
    Ok(Pool::builder(url).policy(policy).build()?)
}

/// Answers a request with one transaction: counts a visit, and returns how many there were.
async fn visit(url: &str, page: &str) -> Result<i64, Box<dyn Error>> {
    let pool = pool(url)?;
    let visits = pool
        .retry()
        .transaction(async |connection| {
            diesel::insert_into(visits::table)
                .values(visits::page.eq(page))
                .execute(connection)
                .await?;
            let visits = visits::table.filter(visits::page.eq(page));
            Ok::<i64, RetryError>(visits.count().get_result(connection).await?)
        })
        .await?;
    Ok(visits)
}

/// Answers a request with one statement.
async fn visits(url: &str, page: &str) -> Result<i64, Box<dyn Error>> {
    let pool = pool(url)?;
    let visits = visits::table.filter(visits::page.eq(page));
    Ok(visits.count().get_result(&mut pool.get().await?).await?)
}

/// Answers a request with one transaction over HTTPS, all of which is sent at once.
async fn visit_over_https(url: &str, page: &str) -> Result<i64, Box<dyn Error>> {
    let connection = HttpConnection::new(url)?;
    let mut batch = connection.batch();
    let visit = diesel::insert_into(visits::table).values(visits::page.eq(page));
    let added = batch.add_execute(visit);
    let visits = visits::table.filter(visits::page.eq(page));
    let visits = batch.add_load::<i64, _>(visits.count());
    let mut results = batch.send().await?;
    assert_eq!(results.take(added)?, 1);
    Ok(results.take(visits)?.into_iter().sum())
}

/// Answers a request with one statement over HTTPS.
async fn visits_over_https(url: &str, page: &str) -> Result<i64, Box<dyn Error>> {
    let mut connection = HttpConnection::new(url)?;
    let visits = visits::table.filter(visits::page.eq(page));
    Ok(visits.count().get_result(&mut connection).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runs = match std::env::args().nth(1) {
        Some(runs) => runs.parse()?,
        None => 5,
    };
    let neon = NeonSim::builder().never_suspend().start().await?;
    neon.sql(
        "CREATE TABLE visits (id SERIAL PRIMARY KEY, page TEXT NOT NULL); \
         GRANT ALL ON visits, visits_id_seq TO PUBLIC",
    )
    .await?;
    println!(
        "| | one statement: round trips | 10 ms | 30 ms | 100 ms | \
         one transaction: round trips | 10 ms | 30 ms | 100 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, url) in ways(&neon) {
        let statement = row(&neon, &url, runs, async |url| visits(url, "/").await).await?;
        let transaction = row(&neon, &url, runs, async |url| visit(url, "/").await).await?;
        println!("| {name} | {statement} | {transaction} |");
    }
    let url = over_443(&neon);
    let statement = row(&neon, &url, runs, async |url| {
        visits_over_https(url, "/").await
    })
    .await?;
    let transaction = row(&neon, &url, runs, async |url| {
        visit_over_https(url, "/").await
    })
    .await?;
    println!("| HTTPS | {statement} | {transaction} |");
    Ok(())
}

/// Returns the URL of the pooled endpoint, also for what goes over port 443.
fn over_443(neon: &NeonSim) -> String {
    let url = neon.pooled_url();
    let url = url.replace("channel_binding=require", "channel_binding=prefer");
    format!("{url}&https_port={}", neon.https_port())
}

/// Returns the ways of a session to the pooled endpoint.
fn ways(neon: &NeonSim) -> [(&'static str, String); 4] {
    let url = over_443(neon);
    // As for Neon's own hosts.
    let tcp = format!("{url}&sslnegotiation=direct");
    let websocket = format!("{url}&transport=websocket");
    [
        ("TCP", tcp.clone()),
        (
            "TCP, `pipeline_login=true`",
            format!("{tcp}&pipeline_login=true"),
        ),
        ("WebSocket", websocket.clone()),
        (
            "WebSocket, `pipeline_login=true`",
            format!("{websocket}&pipeline_login=true"),
        ),
    ]
}

/// Returns the cells of one way: round trips, and the median time for each distance.
async fn row(
    neon: &NeonSim,
    url: &str,
    runs: usize,
    handle: impl AsyncFn(&str) -> Result<i64, Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut cells = Vec::new();
    for round_trip in [10, 30, 100].map(Duration::from_millis) {
        neon.set_latency(round_trip / 2);
        let mut times = Vec::new();
        for _ in 0..runs.max(1) {
            let began = Instant::now();
            handle(url).await?;
            times.push(began.elapsed());
        }
        times.sort();
        let median = times[times.len() / 2];
        if round_trip == FARTHEST {
            // At this distance, the work of the two sides takes less than a round trip.
            let flights = median.as_secs_f64() / round_trip.as_secs_f64();
            cells.insert(0, flights.floor().to_string());
        }
        cells.push(format!("{} ms", median.as_millis()));
    }
    Ok(cells.join(" | "))
}

const FARTHEST: Duration = Duration::from_millis(100);
