//! What tests share.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod scripted;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::connection::InstrumentationEvent;
use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, RunQueryDsl};
use diesel_neon::{Connection, DatabaseUrl, PolicyBuilder, Pool};
use neon_sim::{Builder, EndpointCounters, NeonSim};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Far more than anything here takes, far less than what a stuck test would.
pub const HANG: Duration = Duration::from_secs(60);

/// Whether the pooler tracks prepared statements, as Neon's does: in that binary, which takes in
/// what the others test as well.
pub const TRACKED: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"connection_tracked");

/// Says that a machine is known to have no such pooler.
const WITHOUT: &str = "DIESEL_NEON_WITHOUT_TRACKING_PGBOUNCER";

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
    }
}

pub fn builder() -> Builder {
    let builder = NeonSim::builder().never_suspend();
    match TRACKED {
        true => builder.pgbouncer_program(tracking_pgbouncer()),
        false => builder.pgbouncer_settings([("max_prepared_statements", "0")]),
    }
}

/// The one that `make setup` has got.
fn tracking_pgbouncer() -> PathBuf {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/tools/bin/pgbouncer-tracking"
    );
    if !Path::new(path).exists() {
        assert!(
            std::env::var_os(WITHOUT).is_some(),
            "there is no {path}: run `make setup`, or set {WITHOUT}=1 to do without this route"
        );
        // Past what libtest captures, and before any of its tests can be said to have passed.
        let _ = writeln!(
            std::io::stderr(),
            "\nMISSING: a PgBouncer that tracks prepared statements; NOTHING was tested behind one"
        );
        std::process::exit(0);
    }
    // What it leads to can be reached by those who cannot come here.
    Path::new(path).canonicalize().unwrap()
}

pub async fn start() -> NeonSim {
    let neon = builder().start().await;
    let neon = neon.expect("the stand-in for Neon starts");
    assert!(!TRACKED || neon.pgbouncer_version() >= (1, 21));
    neon.sql(
        "CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL UNIQUE); \
         GRANT ALL ON users, users_id_seq TO PUBLIC",
    )
    .await
    .unwrap();
    neon
}

/// Each route to the one database.
pub fn routes(neon: &NeonSim) -> [(&'static str, String); 4] {
    [
        ("direct, without a proxy", neon.postgres_url()),
        ("PgBouncer, without a proxy", neon.pgbouncer_url()),
        ("direct", neon.url()),
        ("pooled", neon.pooled_url()),
    ]
}

pub async fn connect(url: &str) -> Connection {
    timeout(HANG, Connection::establish(url))
        .await
        .expect("no hang")
        .unwrap()
}

pub fn pool(url: &str, policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Pool {
    let url = DatabaseUrl::parse(url).unwrap();
    Pool::builder(url).policy(policy).build().unwrap()
}

/// What the endpoint of `url` has counted since.
pub fn counted(neon: &NeonSim, url: &str, before: neon_sim::Counters) -> EndpointCounters {
    let counted = neon.counters() - before;
    match url.contains("-pooler") {
        true => counted.pooled,
        false => counted.direct,
    }
}

#[derive(QueryableByName)]
struct Statement {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    statement: String,
}

/// What the server that answers has prepared.
pub async fn prepared(connection: &mut Connection) -> Vec<String> {
    let rows = sql_query("SELECT name, statement FROM pg_prepared_statements ORDER BY name");
    let rows: Vec<Statement> = rows.load(connection).await.unwrap();
    rows.into_iter()
        .map(|row| format!("{}: {}", row.name, row.statement))
        .collect()
}

/// Waits until a query of the superuser's returns `value` in its one field.
pub async fn until(neon: &NeonSim, sql: &str, value: &str) {
    let waiting = async {
        loop {
            let rows = neon.sql(sql).await.unwrap();
            if rows[0][0].as_deref() == Some(value) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, waiting)
        .await
        .unwrap_or_else(|_| panic!("{sql} is not {value}"));
}

/// What instrumentation is told, without what differs from run to run.
pub fn outline(event: &InstrumentationEvent<'_>) -> String {
    use InstrumentationEvent as Event;
    match event {
        Event::StartQuery { query, .. } => format!("start {query}"),
        Event::CacheQuery { sql, .. } => format!("cache {sql}"),
        Event::FinishQuery { query, error, .. } => match error {
            Some(error) => format!("fail {query}: {error}"),
            None => format!("finish {query}"),
        },
        Event::BeginTransaction { depth, .. } => format!("begin {depth}"),
        Event::CommitTransaction { depth, .. } => format!("commit {depth}"),
        Event::RollbackTransaction { depth, .. } => format!("rollback {depth}"),
        other => format!("{other:?}"),
    }
}

/// How many statements of clients run at this moment, and how many sessions are in a transaction.
pub const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
     AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
pub const IN_TRANSACTION: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE usename = 'neondb_owner' AND state LIKE 'idle in transaction%'";

/// An example, with nothing of the environment around the test: `cargo test` builds them next to the tests.
pub fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let example = profile.join("examples").join(name);
    assert!(
        example.exists(),
        "no {}: cargo build --examples",
        example.display()
    );
    let mut command = Command::new(example);
    command.env_clear().kill_on_drop(true);
    command
}
