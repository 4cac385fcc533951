//! What every database begins with.

use std::error::Error as StdError;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use neon_sim::{Error, TestDatabase};
use tempfile::TempDir;

use super::common::{bounded, connect, told};
use super::{start, value};

fn folder(migrations: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in migrations {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[tokio::test]
async fn each_begins_with_the_migrations_and_ends_with_rows_of_its_own() {
    let folder = folder(&[
        (
            "2026-01-01-000000_books/up.sql",
            "CREATE TABLE books (title TEXT); SELECT 1",
        ),
        (
            "2026-01-02-000000_index/up.sql",
            "CREATE INDEX CONCURRENTLY ON books (title)",
        ),
        (
            "2026-01-02-000000_index/metadata.toml",
            "run_in_transaction = false",
        ),
        // As `pg_dump` begins.
        (
            "2026-01-03-000000_dump/up.sql",
            "SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.dumped ()",
        ),
    ]);
    let begin = |path: &Path| {
        let builder = TestDatabase::builder().migrations(path);
        start(builder.sql("INSERT INTO books VALUES ('Emma')"))
    };
    let (one, other) = tokio::join!(begin(folder.path()), begin(folder.path()));
    let (client, _driver) = connect(&one.pooled_url(), one.ca_path()).await;
    // The owner's own.
    let changed = "ALTER TABLE books ADD COLUMN note TEXT; DELETE FROM books";
    client.batch_execute(changed).await.unwrap();
    let (client, _driver) = connect(&other.url(), other.ca_path()).await;
    assert_eq!(value(&client, "SELECT count(*) FROM books").await, "1");
    let versions = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
    let versions = other.sql(versions).await.unwrap().concat();
    assert_eq!(
        versions,
        [1, 2, 3].map(|day| Some(format!("202601{day:02}000000")))
    );

    // Other content, another template.
    let path = folder.path().join("2026-01-01-000000_books/up.sql");
    fs::write(
        path,
        "CREATE TABLE books (title TEXT); CREATE TABLE readers ()",
    )
    .unwrap();
    let third = begin(folder.path()).await;
    assert!(third.sql("SELECT FROM readers").await.is_ok());
    assert!(other.sql("SELECT FROM readers").await.is_err());
}

static PREPARED: AtomicU32 = AtomicU32::new(0);

/// Leaves sessions open.
async fn prepare(database: TestDatabase) -> Result<(), Box<dyn StdError + Send + Sync>> {
    PREPARED.fetch_add(1, Ordering::SeqCst);
    let (client, _driver) = connect(&database.url(), database.ca_path()).await;
    client.batch_execute("CREATE TABLE prepared ()").await?;
    let url = database.postgres_url();
    let (past, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    past.batch_execute("CREATE TABLE more ()").await?;
    std::mem::forget((client, past));
    Ok(())
}

#[tokio::test]
async fn steps_are_taken_once_for_all_databases() {
    let begin = || start(TestDatabase::builder().prepare(prepare));
    let begun = tokio::join!(begin(), begin(), begin(), begin());
    for database in [begun.0, begun.1, begun.2, begun.3] {
        let (client, _driver) = connect(&database.url(), database.ca_path()).await;
        assert_eq!(
            value(&client, "SELECT count(*) FROM prepared, more").await,
            "0"
        );
        assert_eq!(database.counters().direct.attempts, 1);
    }
    assert_eq!(PREPARED.load(Ordering::SeqCst), 1);
    // Another order makes another template.
    start(TestDatabase::builder().prepare(prepare).sql("SELECT 1")).await;
    assert_eq!(PREPARED.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_step_that_fails_is_named_and_taken_again_by_the_next() {
    let folder = folder(&[
        ("1_good/up.sql", "SELECT 1"),
        ("2_bad/up.sql", "CREATE nonsense"),
    ]);
    let failed = async |path: &Path| {
        let starting = TestDatabase::builder().migrations(path).start();
        bounded(starting).await.unwrap_err()
    };
    for _ in 0..2 {
        let Error::Migration { name, source } = failed(folder.path()).await else {
            panic!("a migration failed");
        };
        assert_eq!(name, "2_bad");
        assert!(told::<()>(Err(source)).message().contains("nonsense"));
    }
    assert!(matches!(
        failed(Path::new("/nowhere")).await,
        Error::Io { .. }
    ));

    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = || {
        TestDatabase::builder().prepare(|_| async {
            match TRIED.fetch_add(1, Ordering::SeqCst) {
                0 => Err("not yet"),
                _ => Ok(()),
            }
        })
    };
    let error = bounded(begin().start()).await.unwrap_err();
    assert!(matches!(error, Error::Preparation(_)), "{error:?}");
    assert_eq!(error.source().unwrap().to_string(), "not yet");
    start(begin()).await;
    start(begin()).await;
    assert_eq!(TRIED.load(Ordering::SeqCst), 2);
}
