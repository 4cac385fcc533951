//! A server, folders of migrations, and queries for their results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel_neon::DatabaseUrl;
use diesel_neon::migration::{Done, FailedMigration, MigrateError, Migrator, folder};
use neon_sim::NeonSim;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::common::{HANG, neon_with};

pub(crate) const NONE: [&str; 0] = [];
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A statement that a cancel request reaches and does not end.
pub(crate) const UNSTOPPABLE: &str =
    "DO $$ BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END $$";

pub(crate) const BUSY: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
pub(crate) const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
pub(crate) const MIGRATION_TABLE: &str = "SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, \
    pg_get_expr(adbin, adrelid), conname, pg_get_constraintdef(c.oid)) FROM pg_attribute a \
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
    LEFT JOIN pg_constraint c ON conrelid = attrelid AND attnum = ANY (conkey) \
    WHERE attrelid = '__diesel_schema_migrations'::regclass AND attnum > 0 ORDER BY attnum";

pub(crate) async fn start() -> NeonSim {
    neon_with(|neon| neon.cold_start(Duration::from_millis(50))).await
}

/// Returns the pooled URL, as an app has it.
pub(crate) fn url(neon: &NeonSim) -> DatabaseUrl {
    DatabaseUrl::parse(&neon.pooled_url()).unwrap()
}

pub(crate) async fn finish<T>(future: impl Future<Output = T> + Send) -> T {
    timeout(HANG, future).await.expect("it does not hang")
}

pub(crate) fn three(neon: &NeonSim) -> (Folder, Migrator) {
    let migrations = Folder::new()
        .with("1_a", "CREATE TABLE a ()", "DROP TABLE a")
        .with("2_b", "CREATE TABLE b ()", "DROP TABLE b")
        .with("3_c", "CREATE TABLE c ()", "DROP TABLE c");
    let migrator = Migrator::new(&url(neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    (migrations, migrator)
}

pub(crate) fn slow_second() -> Folder {
    Folder::new().with("1_a", "CREATE TABLE a ()", "").with(
        "2_b",
        "CREATE TABLE b (); SELECT pg_sleep(600)",
        "",
    )
}

pub(crate) async fn nothing_but_the_first(neon: &NeonSim) {
    until(neon, LOCKS, "0").await;
    until(neon, BUSY, "0").await;
    assert_eq!(tables(neon).await, ["a"]);
    assert_eq!(versions(neon).await, ["1"]);
}

pub(crate) fn failed(error: &MigrateError) -> &FailedMigration {
    match error {
        MigrateError::Failed(failed) => failed,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn names(done: &[Done]) -> Vec<&str> {
    done.iter().map(|done| done.name.as_str()).collect()
}

/// Returns the first column of a query's rows.
pub(crate) async fn rows(neon: &NeonSim, sql: &str) -> Vec<String> {
    let rows = neon.sql(sql).await.unwrap();
    rows.into_iter()
        .map(|mut row| row.swap_remove(0).unwrap())
        .collect()
}

pub(crate) async fn until(neon: &NeonSim, sql: &str, expected: &str) {
    finish(async {
        while rows(neon, sql).await != [expected] {
            sleep(TICK).await;
        }
    })
    .await;
}

pub(crate) async fn tables(neon: &NeonSim) -> Vec<String> {
    let sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' \
               AND NOT starts_with(tablename, '__diesel') ORDER BY 1";
    rows(neon, sql).await
}

pub(crate) async fn versions(neon: &NeonSim) -> Vec<String> {
    let sql = "SELECT version FROM __diesel_schema_migrations ORDER BY 1";
    rows(neon, sql).await
}

/// Connects to the server itself.
pub(crate) async fn client(neon: &NeonSim) -> tokio_postgres::Client {
    let config = DatabaseUrl::parse(&neon.postgres_url()).unwrap();
    let config = config.to_tokio_postgres();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Reads the table `a` in a transaction that stays open.
pub(crate) async fn reader(neon: &NeonSim) -> impl Sized + use<> {
    let client = client(neon).await;
    let read = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM a";
    client.batch_execute(read).await.unwrap();
    client
}

pub(crate) fn process(neon: &NeonSim, migrations: &Folder) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "one_process", "--nocapture"])
        .env("MIGRATE", neon.pooled_url())
        .env("MIGRATION_DIRECTORY", &migrations.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs the real `diesel migration`.
pub(crate) async fn diesel(neon: &NeonSim, migrations: &Folder, arguments: &[&str]) -> String {
    let folder = migrations.0.to_str().unwrap();
    let arguments = [&["migration"], arguments, &["--migration-dir", folder]].concat();
    run_diesel(neon, migrations, &arguments).await
}

pub(crate) async fn run_diesel(neon: &NeonSim, migrations: &Folder, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = [root.join("target/tools/bin")]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("diesel"))
        .find(|program| program.is_file());
    // Without this file `diesel` takes the nearest one above, and writes a schema.
    fs::write(migrations.0.join("diesel.toml"), "").unwrap();
    let mut command = Command::new(found.expect("the diesel CLI is missing: run `make setup`"));
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .args(arguments)
        .current_dir(&migrations.0)
        .env("DATABASE_URL", url(neon).direct().to_libpq())
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// A folder of migrations that is removed in the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("migrations-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn with(self, name: &str, up: &str, down: &str) -> Self {
        let folder = self.0.join(name);
        fs::create_dir_all(&folder).unwrap();
        // An empty file would be refused.
        for (file, sql) in [("up.sql", up), ("down.sql", down)] {
            let sql = if sql.is_empty() { "SELECT 1" } else { sql };
            fs::write(folder.join(file), sql).unwrap();
        }
        self
    }

    pub(crate) fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.join(file), text).unwrap();
    }

    pub(crate) fn outside_of_a_transaction(self, name: &str) -> Self {
        self.write(
            &format!("{name}/metadata.toml"),
            "run_in_transaction = false",
        );
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
