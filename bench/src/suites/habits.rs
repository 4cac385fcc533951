//! What a pool does with a connection that is too old, left in a transaction, or still busy, and with its callers' URLs.

use std::ops::DerefMut;
use std::time::{Duration, Instant};

use diesel::pg::Pg;
use diesel::sql_types::Integer;
use diesel_async::pooled_connection::bb8;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::DatabaseUrl;
use neon_sim::NeonSim;
use tokio::time::{sleep, timeout};

use super::on_runtime;
use crate::pools::{Bb8, Configuration, NAMES, Ours, Pool, Settings, manager};
use crate::report::{Chapter, Table};
use crate::stand_in;

pub fn run() -> Chapter {
    on_runtime(async {
        let neon = stand_in::start().await;
        let mut table = Table::new("habits", "", &NAMES[..2]);
        macro_rules! rows {
            ($($what:literal => $habit:ident;)*) => {$(
                let words = [$habit::<Ours>(&neon).await, $habit::<Bb8>(&neon).await];
                table.words($what, words.to_vec());
            )*};
        }
        rows! {
            "a caller 0.5 s after the end of a connection's `max_lifetime` of 1 s" => overdue;
            "five URLs as Neon's tools print them; `tcp_user_timeout=10000`" => urls;
            "one who may wait 0.8 s, while another takes the only connection again and again for 1 ms" => jostled;
            "a connection given back after a raw `BEGIN`" => left_open;
            "a statement of 2 s given up after 0.1 s: the next caller's `SELECT 1`" => given_up;
        }
        Chapter {
            suite: "habits".into(),
            title: "Habits".into(),
            text: TEXT.into(),
            tables: vec![table],
            plots: Vec::new(),
        }
    })
}

const TEXT: &str = "\
What a pool does with a connection that is older than it may be, that was left in a transaction, or is still busy; with a caller who \
waits; and with URLs as Neon's tools print them, of which the peer's are read by tokio-postgres. Both pools have the same settings, and bb8 the \
rest as it comes: it looks every 30 s for connections that are too old, and not when it hands one out.\
";

/// What these habits ask of a pool beyond [`Pool`].
trait Habits: Pool {
    type Connection: AsyncConnection<Backend = Pg> + SimpleAsyncConnection;

    fn with(url: &str, lifetime: Duration) -> Self;

    async fn get(&self) -> Result<impl DerefMut<Target = Self::Connection>, String>;

    fn parse(url: &str) -> Option<tokio_postgres::Config>;
}

impl Habits for Ours {
    type Connection = diesel_neon::Connection;

    fn with(url: &str, lifetime: Duration) -> Self {
        let builder = diesel_neon::Pool::builder(url)
            .never_suspends()
            .max_size(1)
            .checkout_timeout(PATIENCE)
            .max_lifetime(lifetime);
        Self(builder.build().expect("a pool"))
    }

    async fn get(&self) -> Result<impl DerefMut<Target = Self::Connection>, String> {
        self.0.get().await.map_err(|error| error.to_string())
    }

    fn parse(url: &str) -> Option<tokio_postgres::Config> {
        let url = DatabaseUrl::parse(url).ok()?;
        Some(url.to_tokio_postgres())
    }
}

impl Habits for Bb8 {
    type Connection = AsyncPgConnection;

    fn with(url: &str, lifetime: Duration) -> Self {
        let builder = bb8::Pool::builder()
            .max_size(1)
            .connection_timeout(PATIENCE)
            .max_lifetime(lifetime);
        Self(builder.build_unchecked(manager(url, SETTINGS)))
    }

    async fn get(&self) -> Result<impl DerefMut<Target = Self::Connection>, String> {
        self.0.get().await.map_err(|error| error.to_string())
    }

    fn parse(url: &str) -> Option<tokio_postgres::Config> {
        url.parse().ok()
    }
}

const PATIENCE: Duration = Duration::from_secs(3);
const HOUR: Duration = Duration::from_secs(3600);
const SETTINGS: Settings = Settings {
    configuration: Configuration::Default,
    max_size: 3,
    patience: PATIENCE,
};

async fn overdue<P: Habits>(neon: &NeonSim) -> String {
    async fn process<P: Habits>(pool: &P) -> i32 {
        let mut connection = pool.get().await.expect("a connection");
        let process = diesel::dsl::sql::<Integer>("SELECT pg_backend_pid()");
        let process = process.get_result(&mut *connection).await;
        process.expect("an answer")
    }
    let pool = P::with(&neon.url(), Duration::from_secs(1));
    let first = process(&pool).await;
    sleep(Duration::from_millis(1500)).await;
    let outcome = match process(&pool).await == first {
        true => "is handed the old one",
        false => "gets a new one",
    };
    outcome.into()
}

async fn urls<P: Habits>(_: &NeonSim) -> String {
    let host = "postgresql://u:p@ep-a-1-pooler.us-east-2.aws.neon.tech/neondb";
    let printed = [
        format!("{host}?sslmode=require&channel_binding=require"),
        format!("psql '{host}?sslmode=require&channel_binding=require'"),
        format!("{host}?sslmode=require&connect_timeout=30&pool_timeout=30&pgbouncer=true"),
        format!("{host}?pgbouncer=true&connect_timeout=15&sslmode=require"),
        format!("{host}?sslmode=verify-full&sslrootcert=system"),
    ];
    let understood = printed.iter().filter(|url| P::parse(url).is_some()).count();
    let timeout = P::parse(&format!("{host}?tcp_user_timeout=10000"));
    let timeout = timeout.and_then(|config| config.get_tcp_user_timeout().copied());
    let timeout = timeout.expect("a timeout").as_secs();
    format!("understands {understood}; {timeout} s (libpq: 10 s)")
}

async fn jostled<P: Habits>(neon: &NeonSim) -> String {
    let pool = P::with(&neon.url(), HOUR);
    let held = pool.get().await.expect("a connection");
    let began = Instant::now();
    let waiter = {
        let pool = pool.clone();
        async move {
            let waited = timeout(Duration::from_millis(800), pool.hold(async {})).await;
            waited.is_ok_and(|got| got.is_ok())
        }
    };
    let waiter = tokio::spawn(waiter);
    sleep(Duration::from_millis(1)).await;
    drop(held);
    let mut laps = 0;
    while !waiter.is_finished() {
        let _thief = pool.get().await;
        sleep(Duration::from_millis(1)).await;
        laps += 1;
    }
    let waited = began.elapsed().as_millis();
    match waiter.await.expect("no panic") {
        true => format!("is served after {waited} ms, in {laps} of the other's laps"),
        false => format!("gets nothing, in {laps} of the other's laps"),
    }
}

async fn left_open<P: Habits>(neon: &NeonSim) -> String {
    let pool = P::with(&neon.url(), HOUR);
    let mut connection = pool.get().await.expect("a connection");
    connection.batch_execute("BEGIN").await.expect("an answer");
    drop(connection);
    let mut connection = pool.get().await.expect("a connection");
    // SAVEPOINT fails outside of a transaction.
    let outcome = match connection.batch_execute("SAVEPOINT here").await {
        Ok(()) => "the next caller is inside the transaction",
        Err(_) => "the next caller gets a clean one",
    };
    outcome.into()
}

async fn given_up<P: Habits>(neon: &NeonSim) -> String {
    let pool = P::with(&neon.url(), HOUR);
    let mut connection = pool.get().await.expect("a connection");
    let statement = connection.batch_execute("SELECT pg_sleep(2)");
    let _ = timeout(Duration::from_millis(100), statement).await;
    drop(connection);
    let began = Instant::now();
    let mut connection = pool.get().await.expect("a connection");
    connection
        .batch_execute("SELECT 1")
        .await
        .expect("an answer");
    let waited = began.elapsed();
    match waited.as_millis() {
        0..1000 => format!("is answered after {} ms", waited.as_millis()),
        _ => format!("is answered after {:.1} s", waited.as_secs_f64()),
    }
}
