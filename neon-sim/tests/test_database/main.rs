//! A database for each test, on servers that all of them share. Each test is of the stand-in's own.

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod project;
mod steps;
mod ways;

use common::{Driver, bounded, config, connect, refusal, try_connect};
use neon_sim::{Error, Event, Pooler, Suspension, TestDatabase, TestDatabaseBuilder};
use tokio_postgres::Client;

async fn start(builder: TestDatabaseBuilder) -> TestDatabase {
    bounded(builder.start()).await.unwrap()
}

async fn value(client: &Client, sql: &str) -> String {
    let row = bounded(client.query_one(sql, &[])).await.unwrap();
    row.get::<_, i64>(0).to_string()
}

/// Sessions with a state that ends with them: a temporary table, and a transaction that has a lock.
struct Sessions {
    direct: (Client, Driver),
    pooled: (Client, Driver),
}

impl Sessions {
    async fn of(database: &TestDatabase) -> Self {
        let direct = connect(&database.url(), database.ca_path()).await;
        let pooled = connect(&database.pooled_url(), database.ca_path()).await;
        let state = "CREATE TEMP TABLE seen (id BIGINT); INSERT INTO seen VALUES (1)";
        direct.0.batch_execute(state).await.unwrap();
        let locked = "BEGIN; SELECT pg_advisory_xact_lock(1)";
        pooled.0.batch_execute(locked).await.unwrap();
        Self { direct, pooled }
    }
}

#[tokio::test]
async fn a_suspension_touches_no_other_database() {
    let (one, other) = tokio::join!(
        start(TestDatabase::builder()),
        start(TestDatabase::builder())
    );
    assert_ne!(one.database(), other.database());
    for suspension in [Suspension::Normal, Suspension::Reset] {
        let ended = Sessions::of(&one).await;
        let kept = Sessions::of(&other).await;
        let mut events = one.events();
        let before = (one.counters(), other.counters());

        one.suspend(suspension).await;

        assert!(one.is_suspended() && !other.is_suspended());
        let suspended = events.recv().await.unwrap();
        assert!(matches!(suspended, Event::Suspended { sessions: 2, .. }));
        for (_client, driver) in [ended.direct, ended.pooled] {
            bounded(driver).await.unwrap().unwrap_err();
        }
        let locks = "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid \
             WHERE locktype = 'advisory' AND datname = current_database()";
        let left = async |database: &TestDatabase| database.sql(locks).await.unwrap();
        assert_eq!(left(&one).await[0][0].as_deref(), Some("0"));
        assert_eq!(left(&other).await[0][0].as_deref(), Some("1"));
        assert_eq!(value(&kept.direct.0, "SELECT id FROM seen").await, "1");
        kept.pooled.0.batch_execute("COMMIT").await.unwrap();

        // What is suspended wakes for its own clients alone.
        connect(&other.pooled_url(), other.ca_path()).await;
        assert!(one.is_suspended());
        connect(&one.pooled_url(), one.ca_path()).await;
        let counted = (one.counters() - before.0, other.counters() - before.1);
        assert_eq!((counted.0.suspensions, counted.0.wakes), (1, 1));
        assert_eq!((counted.1.suspensions, counted.1.wakes), (0, 0));
        assert_eq!(
            (counted.0.pooled.attempts, counted.0.direct.attempts),
            (1, 0)
        );
        assert_eq!(
            (counted.1.pooled.attempts, counted.1.direct.attempts),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn faults_touch_no_other_database() {
    let one = start(TestDatabase::builder()).await;
    let other = start(TestDatabase::builder()).await;
    one.refuse_connections(1, "no");
    one.suspend(Suspension::Normal).await;
    one.fail_wakes(1, "Control plane request failed: endpoint is disabled");
    connect(&other.url(), other.ca_path()).await;
    let refused = try_connect(&config(&one.url()), one.ca_path()).await;
    assert_eq!(refusal(refused), "no");
    let refused = try_connect(&config(&one.url()), one.ca_path()).await;
    assert!(refusal(refused).contains("endpoint is disabled"));
}

/// A compute has one database, so that its suspension can end all that it has begun.
#[tokio::test]
async fn an_endpoint_leads_to_its_own_database() {
    let one = start(TestDatabase::builder()).await;
    let other = start(TestDatabase::builder()).await;
    let missing = format!("database \"{}\" does not exist", other.database());
    for url in [one.url(), one.pooled_url()] {
        let mut config = config(&url);
        config.dbname(other.database());
        assert_eq!(refusal(try_connect(&config, one.ca_path()).await), missing);
    }
    let sql = common::http::Sql::connect(&one).await;
    assert_eq!(sql.query("SELECT 1").await.0, 200);
    let url = one.url().replace(one.database(), other.database());
    let (status, said) = sql
        .with("neon-connection-string", url)
        .query("SELECT 1")
        .await;
    assert_eq!((status, &said["code"]), (400, &"3D000".into()));
    assert_eq!(said["message"], missing);
}

#[tokio::test]
async fn shared_servers_are_not_restarted() {
    let shared = start(TestDatabase::builder()).await;
    let down = std::time::Duration::ZERO;
    for (method, refused) in [
        ("restart_postgres", shared.restart_postgres(down).await),
        ("restart_pgbouncer", shared.restart_pgbouncer(down).await),
        ("serve_control", shared.serve_control(0).await.map(|_| ())),
        ("create_database", shared.create_database("another").await),
        (
            "pgbouncer_command",
            shared.pgbouncer_command("PAUSE").await.map(|_| ()),
        ),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::SharedServers(named) if named == method));
        assert!(error.to_string().contains("`alone`"), "{error}");
    }
    let alone = start(TestDatabase::builder().sql("CREATE TABLE kept ()").alone()).await;
    bounded(alone.restart_postgres(down)).await.unwrap();
    let (client, _driver) = connect(&alone.pooled_url(), alone.ca_path()).await;
    assert_eq!(value(&client, "SELECT count(*) FROM kept").await, "0");
    assert_eq!(alone.counters().suspensions, 0);
}

#[tokio::test]
async fn postgres_serves_the_pooled_endpoint_without_pgbouncer() {
    let settings = TestDatabase::builder().neon(|neon| neon.pooler(Pooler::Direct));
    let database = start(settings.alone()).await;
    assert!(!database.has_pgbouncer());
    assert_eq!(database.pgbouncer_version(), (0, 0));
    let refused = [
        database.pgbouncer_command("SHOW POOLS").await.map(|_| ()),
        database.restart_pgbouncer(std::time::Duration::ZERO).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::NoPgBouncer)), "{refused:?}");
    }
    let sessions = Sessions::of(&database).await;
    database.suspend(Suspension::Normal).await;
    for (_client, driver) in [sessions.direct, sessions.pooled] {
        bounded(driver).await.unwrap().unwrap_err();
    }
    let (client, _driver) = connect(&database.pooled_url(), database.ca_path()).await;
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM pg_class WHERE relname = 'seen'"
        )
        .await,
        "0"
    );
    assert_eq!(database.counters().pooled.connections, 2);
    let with = start(TestDatabase::builder()).await;
    assert!(with.has_pgbouncer() && with.pgbouncer_version() > (0, 0));
}
