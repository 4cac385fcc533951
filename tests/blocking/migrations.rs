//! Migrations by diesel_migrations' own harness.

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
