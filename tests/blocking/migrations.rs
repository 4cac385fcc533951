//! Migrations by diesel_migrations' own harness.

use std::fs;

use diesel::migration::Migration;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use diesel_neon::blocking::{PgConnection, block_on};
use diesel_neon::migration::Migrator;
use diesel_neon::{DatabaseUrl, blocking};

use super::{pool, start};

fn migrations() -> FileBasedMigrations {
    FileBasedMigrations::from_path("migrations").unwrap()
}

#[test]
fn the_harness_runs_and_reverts() {
    let sim = start();
    sim.sql("DROP TABLE books");
    let pool = pool(&sim.url(), |policy| policy);
    let conn: &mut blocking::Connection = &mut pool.get().unwrap();
    assert!(conn.has_pending_migration(migrations()).unwrap());
    let run = conn.run_pending_migrations(migrations()).unwrap();
    assert_eq!(run.len(), 2);
    assert_eq!(conn.applied_migrations().unwrap().len(), 2);
    assert!(!conn.has_pending_migration(migrations()).unwrap());
    assert_eq!(
        sim.sql("SELECT to_regclass('public.books')").as_deref(),
        Some("books")
    );

    conn.revert_all_migrations(migrations()).unwrap();
    assert_eq!(sim.sql("SELECT to_regclass('public.books')"), None);
    let again = &mut PgConnection::establish(&sim.url()).unwrap();
    again.run_pending_migrations(migrations()).unwrap();
}

#[test]
fn the_migrator_is_waited_for() {
    let sim = start();
    sim.sql("DROP TABLE books");
    let url = DatabaseUrl::parse(&sim.pooled_url()).unwrap();
    let migrator = Migrator::new(&url, migrations()).unwrap();
    let report = block_on(migrator.run_pending()).unwrap().unwrap();
    assert_eq!(report.done.len(), 2);
}

#[test]
fn migrations_run_one_by_one_and_a_failing_one_leaves_nothing() {
    let sim = start();
    let folder = sim.ca_path().parent().unwrap().join("migrations");
    let write = |name: &str, up: &str, down: &str| {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("up.sql"), up).unwrap();
        fs::write(folder.join("down.sql"), down).unwrap();
    };
    let source = || FileBasedMigrations::from_path(&folder).unwrap();
    let second = "CREATE TABLE second (id INTEGER)";
    write(
        "1_first",
        "CREATE TABLE first (id INTEGER)",
        "DROP TABLE first",
    );
    write(
        "2_second",
        &format!("{second}; SELECT nonsense"),
        "DROP TABLE second",
    );

    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    let first = conn.run_next_migration(source()).unwrap().to_string();
    assert_eq!(first, "1");
    let failed = conn.run_next_migration(source()).unwrap_err().to_string();
    assert!(
        failed.contains("2_second") && failed.contains("nonsense"),
        "{failed}"
    );
    assert_eq!(sim.sql("SELECT to_regclass('public.second')"), None);
    let pending: Vec<Box<dyn Migration<Pg>>> = conn.pending_migrations(source()).unwrap();
    let pending: Vec<_> = pending.iter().map(|one| one.name().to_string()).collect();
    assert_eq!(pending, ["2_second"]);

    write("2_second", second, "DROP TABLE second");
    assert_eq!(conn.run_pending_migrations(source()).unwrap().len(), 1);
    let reverted = conn.revert_last_migration(source()).unwrap().to_string();
    assert_eq!(reverted, "2");
    assert_eq!(sim.sql("SELECT to_regclass('public.second')"), None);
    assert_eq!(conn.applied_migrations().unwrap().len(), 1);
}
