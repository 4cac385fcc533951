//! The set-up that tests share.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod log;
pub mod scripted;

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::InstrumentationEvent;
use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, RunQueryDsl};
use diesel_neon::{Connection, Establish, Policy, PolicyBuilder, Pool, PoolBuilder};
use neon_sim::{Builder, EndpointCounters, NeonSim};
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Only a test that hangs takes so long.
pub const HANG: Duration = Duration::from_secs(120);

/// Whether the pooler tracks prepared statements, as Neon's does: in the binary `connection_tracked`, which
/// runs the tests of others as well.
pub const TRACKED: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"connection_tracked");

/// Set if a machine is known to have no such pooler.
const WITHOUT: &str = "DIESEL_NEON_WITHOUT_TRACKING_PGBOUNCER";

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
    }
}

/// Starts a stand-in whose compute stays awake.
pub async fn neon() -> NeonSim {
    neon_with(|neon| neon).await
}

/// Starts a stand-in with these settings. Its compute stays awake unless they say otherwise.
pub async fn neon_with(settings: impl FnOnce(Builder) -> Builder) -> NeonSim {
    let neon = settings(pooler(NeonSim::builder()).never_suspend())
        .start()
        .await;
    neon.expect("the stand-in for Neon starts")
}

/// Sets the pooler up that this binary tests behind.
fn pooler(builder: Builder) -> Builder {
    match TRACKED {
        true => builder.pgbouncer_program(tracking_pgbouncer()),
        false => builder.pgbouncer_settings([("max_prepared_statements", "0")]),
    }
}

/// Returns the PgBouncer that `make setup` has installed.
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
        // Written past libtest's capture, before a test can be reported as passed.
        let _ = writeln!(
            std::io::stderr(),
            "\nMISSING: a PgBouncer that tracks prepared statements; NOTHING was tested behind one"
        );
        std::process::exit(0);
    }
    // Other users may not be able to read this folder, but they can read the link's target.
    Path::new(path).canonicalize().unwrap()
}

/// Starts a stand-in with the table [`users`].
pub async fn start() -> NeonSim {
    let neon = neon().await;
    assert!(!TRACKED || neon.pgbouncer_version() >= (1, 21));
    neon.sql(
        "CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL UNIQUE); \
         GRANT ALL ON users, users_id_seq TO PUBLIC; \
         GRANT ALL ON SCHEMA public TO PUBLIC",
    )
    .await
    .unwrap();
    neon
}

/// Returns each route to the database.
pub fn routes(neon: &NeonSim) -> Vec<(&'static str, String)> {
    let mut routes = vec![
        ("direct, without a proxy", neon.postgres_url()),
        ("PgBouncer, without a proxy", neon.pgbouncer_url()),
        ("direct", neon.url()),
        ("pooled", neon.pooled_url()),
    ];
    if cfg!(feature = "websocket") {
        let over = |url| over_websocket(neon, url);
        routes.push(("direct, over a WebSocket", over(neon.url())));
        routes.push(("pooled, over a WebSocket", over(neon.pooled_url())));
    }
    routes
}

/// Returns the URL of the same endpoint over a WebSocket.
pub fn over_websocket(neon: &NeonSim, url: String) -> String {
    let url = url.replace("channel_binding=require", "channel_binding=prefer");
    let port = neon.https_port();
    format!("{url}&transport=websocket&https_port={port}")
}

/// Returns the URL of the same endpoint for requests over HTTPS.
pub fn over_https(neon: &NeonSim, url: String) -> String {
    let url = url.replace("channel_binding=require", "channel_binding=prefer");
    let port = neon.https_port();
    format!("{url}&https_port={port}")
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn pg_backend_pid() -> diesel::sql_types::Integer;
}

/// Returns the server process of a connection.
pub async fn backend(connection: &mut Connection) -> i32 {
    let pid = diesel::select(pg_backend_pid()).get_result(connection);
    pid.await.unwrap()
}

pub async fn connect(url: &str) -> Connection {
    timeout(HANG, Connection::establish(url))
        .await
        .expect("no hang")
        .unwrap()
}

pub fn pool(url: &str, policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Pool {
    pool_of(url, policy)
}

/// Returns a pool of another type of connection.
pub fn pool_of<C: Establish>(
    url: &str,
    policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder,
) -> Pool<C> {
    let policy = policy(Policy::builder());
    PoolBuilder::new(url).policy(policy).build().unwrap()
}

/// Returns a URL as behind a firewall that lets nothing through but a proxy, over a WebSocket.
pub fn behind_a_firewall(neon: &NeonSim, url: String) -> String {
    // The name resolves to nothing here: the proxy looks it up.
    let url = over_websocket(neon, url).replace("&hostaddr=127.0.0.1", "");
    let url = url.replace(&format!(":{}/", neon.port()), ":9/");
    let port = format!("https_port={}", neon.https_port());
    url.replace(&port, "https_port=443")
}

/// When an attempt has dropped a statement that is under way.
#[derive(Default)]
pub struct GivenUp(OnceLock<Instant>);

impl GivenUp {
    pub fn note(&self) {
        self.0.get_or_init(Instant::now);
    }
}

/// Makes attempts until one is not disturbed, 50 at most. An abandoned statement has 100 ms to be answered; if a busy machine
/// takes longer, the connection is closed, and what a test is about does not happen. Before that, nothing may close it.
pub async fn undisturbed(attempt: impl AsyncFn(&GivenUp) -> bool) {
    undisturbed_for(Duration::from_millis(100), attempt).await;
}

/// As [`undisturbed`], where the server may be silent for this `patience`.
pub async fn undisturbed_for(patience: Duration, attempt: impl AsyncFn(&GivenUp) -> bool) {
    for _ in 0..50 {
        let given_up = GivenUp::default();
        if attempt(&given_up).await {
            return;
        }
        let since = given_up.0.get().expect("a statement was dropped").elapsed();
        assert!(since >= patience, "closed after {since:?}");
    }
    panic!("disturbed each time");
}

/// Returns a port that refuses connections. No other socket is given it while this one lives.
pub fn refusing_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Returns what the endpoint of `url` has counted since `before`.
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

/// Returns the prepared statements of the server process that answers.
pub async fn prepared(connection: &mut Connection) -> Vec<String> {
    // A text that came twice would be among them.
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let rows = sql_query(format!(
        "SELECT name, statement FROM pg_prepared_statements ORDER BY name -- {}",
        ASKED.fetch_add(1, Ordering::Relaxed)
    ));
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

/// Renders an event of instrumentation without the parts that differ from run to run.
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

/// Counts the running statements of clients, and the sessions in a transaction.
pub const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
     AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
pub const IN_TRANSACTION: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE usename = 'neondb_owner' AND state LIKE 'idle in transaction%'";

/// Returns the command of an example, which `cargo test` builds next to the tests, with an empty environment.
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
