//! Compares bb8 with diesel-async's own manager and this crate's pool in situations in which the former is known
//! to be weak. Both run against a stand-in for Neon with the same settings; the result is a table in Markdown.
//!
//! `cargo run --release --example experiments`

mod pools;

use std::time::Duration;

use diesel::sql_types::Integer;
use diesel_async::{AsyncConnection, RunQueryDsl};
use diesel_neon::{DatabaseUrl, Pool};
use neon_sim::{NeonSim, Suspension};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::pools::{AnyPool, Held, Settings, Side};

#[tokio::main]
async fn main() {
    println!("| | what is done | bb8 with diesel-async | diesel-neon |");
    println!("|---|---|---|---|");
    macro_rules! rows {
        ($($name:literal, $what:literal, $experiment:ident;)*) => {$(
            let stock = $experiment(Side::Stock).await;
            let ours = $experiment(Side::Ours).await;
            println!("| {} | {} | {stock} | {ours} |", $name, $what);
        )*};
    }
    rows! {
        "E1", "the password is wrong, a caller may wait 3 s", wrong_password;
        "E2", "1 idle connection of a pool of 3 dies silently, 3 callers in turn may wait 2 s each", half_open;
        "E3", "lifetime 1 s, a caller after 1.5 s", overdue;
        "E4", "`min_idle` 1, `idle_timeout` 100 ms, no traffic for 2 s", churn;
        "E5", "5 connection strings as Neon's tools print them; `tcp_user_timeout=10000`", urls;
        "E6", "10 of 10 idle connections die silently, 3 callers in turn give up after 1.5 s", impatient;
        "", "the same, 50 callers at once may wait 3 s", burst;
        "E7", "a caller who may wait 0.8 s, while another loops over get, 1 ms, drop on the only connection", unfair;
        "E8", "Diesel's own calls on a pooled connection: load, a transaction", diesels_own;
        "E9", "a connection is given back after a raw `BEGIN`", raw_begin;
        "E10", "a query of 2 s is given up after 0.1 s, the next caller selects 1", given_up;
    }
}

async fn wrong_password(side: Side) -> String {
    let neon = neon().await;
    let url = neon.url().replace(neon.password(), "wrong");
    let pool = Settings::new(3, Duration::from_secs(3))
        .build(&neon, &url, side)
        .await;
    let began = Instant::now();
    let error = pool.get().await.err().unwrap_or_default();
    format!("after {}: {error:?}", shown(began.elapsed()))
}

async fn half_open(side: Side) -> String {
    let neon = neon().await;
    let pool = Settings::new(3, Duration::from_secs(2))
        .on(&neon, side)
        .await;
    silently_dead(&neon, &pool, 1).await;
    callers_in_turn(&pool, 3, Duration::MAX).await
}

async fn overdue(side: Side) -> String {
    let neon = neon().await;
    let mut settings = Settings::new(1, Duration::from_secs(3));
    settings.max_lifetime = Some(Duration::from_secs(1));
    let pool = settings.on(&neon, side).await;
    let first = pool.get().await.expect("a connection").process().await;
    sleep(Duration::from_millis(1500)).await;
    let second = pool.get().await.expect("a connection").process().await;
    let outcome = if first == second {
        "is handed the old one"
    } else {
        "gets a new one"
    };
    outcome.into()
}

async fn churn(side: Side) -> String {
    let neon = neon().await;
    let mut settings = Settings::new(3, Duration::from_secs(3));
    settings.idle_timeout = Some(Duration::from_millis(100));
    let refused = match side {
        Side::Stock => {
            settings.min_idle = Some(1);
            None
        }
        Side::Ours => Pool::builder(neon.url()).min_idle(1).build().err(),
    };
    let pool = settings.on(&neon, side).await;
    let first = pool.get().await.map(|_| ());
    first.expect("a connection");
    let before = neon.counters().direct.connections;
    sleep(Duration::from_secs(2)).await;
    let opened = neon.counters().direct.connections - before;
    match refused {
        Some(error) => format!("refused: {error:?}; without it, opens {opened} connections"),
        None => format!("opens {opened} connections, each of which keeps the compute awake"),
    }
}

async fn urls(side: Side) -> String {
    let host = "postgresql://u:p@ep-a-1-pooler.us-east-2.aws.neon.tech/neondb";
    let printed = [
        format!("{host}?sslmode=require&channel_binding=require"),
        format!("psql '{host}?sslmode=require&channel_binding=require'"),
        format!("{host}?sslmode=require&connect_timeout=30&pool_timeout=30&pgbouncer=true"),
        format!("{host}?pgbouncer=true&connect_timeout=15&sslmode=require"),
        format!("{host}?sslmode=verify-full&sslrootcert=system"),
    ];
    let config = |url: &str| match side {
        Side::Stock => url.parse::<tokio_postgres::Config>().ok(),
        Side::Ours => DatabaseUrl::parse(url)
            .ok()
            .map(|url| url.to_tokio_postgres()),
    };
    let understood = printed.iter().filter(|url| config(url).is_some()).count();
    let timeout = config(&format!("{host}?tcp_user_timeout=10000"));
    let timeout = timeout.and_then(|config| config.get_tcp_user_timeout().copied());
    let timeout = timeout.expect("a timeout").as_secs();
    format!("understands {understood}; {timeout} s (libpq: 10 s)")
}

async fn impatient(side: Side) -> String {
    let neon = neon().await;
    let pool = Settings::new(10, Duration::from_secs(3))
        .on(&neon, side)
        .await;
    silently_dead(&neon, &pool, 10).await;
    callers_in_turn(&pool, 3, Duration::from_millis(1500)).await
}

async fn burst(side: Side) -> String {
    let neon = neon().await;
    let pool = Settings::new(10, Duration::from_secs(3))
        .on(&neon, side)
        .await;
    silently_dead(&neon, &pool, 10).await;
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for _ in 0..50 {
        let pool = pool.clone();
        callers.spawn(async move {
            pool.get().await?.ask("SELECT 1").await?;
            Ok::<_, String>(began.elapsed())
        });
    }
    outcome(callers.join_all().await)
}

async fn unfair(side: Side) -> String {
    let neon = neon().await;
    let pool = Settings::new(1, Duration::from_secs(3))
        .on(&neon, side)
        .await;
    let held = pool.get().await.expect("a connection");
    let began = Instant::now();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move {
            let waited = timeout(Duration::from_millis(800), pool.get()).await;
            waited.is_ok_and(|got| got.is_ok())
        }
    });
    sleep(Duration::from_millis(1)).await;
    drop(held);
    let mut laps = 0;
    while !waiter.is_finished() {
        let _thief = pool.get().await;
        sleep(Duration::from_millis(1)).await;
        laps += 1;
    }
    let waited = shown(began.elapsed());
    match waiter.await.expect("no panic") {
        true => format!("is served after {waited}, in {laps} of the other's laps"),
        false => format!("gets nothing, in {laps} of the other's laps"),
    }
}

async fn diesels_own(side: Side) -> String {
    async fn work<C>(connection: &mut C) -> diesel::QueryResult<Vec<i32>>
    where
        C: AsyncConnection<Backend = diesel::pg::Pg>,
    {
        use diesel::IntoSql;
        let work = async |connection: &mut C| {
            let one = diesel::select(1.into_sql::<Integer>());
            one.load::<i32>(connection).await
        };
        connection.transaction(work).await
    }
    let neon = neon().await;
    let pool = Settings::new(1, Duration::from_secs(3))
        .on(&neon, side)
        .await;
    let done = match pool.get().await.expect("a connection") {
        Held::Stock(mut connection) => work(&mut **connection).await,
        Held::Ours(mut connection) => work(&mut *connection).await,
    };
    if done == Ok(vec![1]) { "work" } else { "fail" }.into()
}

async fn raw_begin(side: Side) -> String {
    let neon = neon().await;
    let pool = Settings::new(1, Duration::from_secs(3))
        .on(&neon, side)
        .await;
    let mut connection = pool.get().await.expect("a connection");
    connection.ask("BEGIN").await.expect("an answer");
    drop(connection);
    let mut connection = pool.get().await.expect("a connection");
    // SAVEPOINT fails outside of a transaction.
    match connection.ask("SAVEPOINT here").await {
        Ok(()) => "the next caller is inside the transaction".into(),
        Err(_) => "the next caller gets a clean one".into(),
    }
}

async fn given_up(side: Side) -> String {
    let neon = neon().await;
    let pool = Settings::new(1, Duration::from_secs(3))
        .on(&neon, side)
        .await;
    let mut connection = pool.get().await.expect("a connection");
    let query = connection.ask("SELECT pg_sleep(2)");
    let _ = timeout(Duration::from_millis(100), query).await;
    drop(connection);
    let began = Instant::now();
    let mut connection = pool.get().await.expect("a connection");
    connection.ask("SELECT 1").await.expect("an answer");
    format!("has an answer after {}", shown(began.elapsed()))
}

/// Fills the pool, lets it rest, and cuts its connections without a word.
async fn silently_dead(neon: &NeonSim, pool: &AnyPool, connections: usize) {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut connection = pool.get().await.expect("a connection");
        connection.ask("SELECT 1").await.expect("an answer");
        held.push(connection);
    }
    drop(held);
    sleep(Duration::from_secs(1)).await;
    neon.suspend(Suspension::Silent).await;
    neon.wake().await;
}

async fn callers_in_turn(pool: &AnyPool, callers: usize, patience: Duration) -> String {
    let mut answers = Vec::new();
    for _ in 0..callers {
        let began = Instant::now();
        let answer = timeout(patience, async {
            pool.get().await?.ask("SELECT 1").await?;
            Ok(began.elapsed())
        });
        answers.push(answer.await.unwrap_or_else(|_| Err("gave up".to_owned())));
    }
    outcome(answers)
}

fn outcome(answers: Vec<Result<Duration, String>>) -> String {
    let callers = answers.len();
    let served: Vec<_> = answers.into_iter().flatten().collect();
    let failed = callers - served.len();
    match (served.iter().min(), served.iter().max()) {
        (Some(first), Some(last)) => format!(
            "{failed} of {callers} fail; fastest {}, slowest {}",
            shown(*first),
            shown(*last)
        ),
        _ => format!("{failed} of {callers} fail"),
    }
}

fn shown(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

async fn neon() -> NeonSim {
    let neon = NeonSim::builder()
        .never_suspend()
        .cold_start(Duration::from_millis(300));
    neon.start().await.expect("the stand-in for Neon starts")
}
