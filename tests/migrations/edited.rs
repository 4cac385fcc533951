//! Migrations that were edited after they were applied.

use std::sync::{Arc, Mutex};

use diesel_neon::migration::{Migrator, Progress, State, folder};

use crate::helpers::*;

#[tokio::test]
async fn a_migration_edited_after_it_was_applied_is_reported() {
    let neon = start().await;
    let (migrations, migrator) = three(&neon);
    finish(migrator.run_pending()).await.unwrap();
    assert_eq!(edited(&migrator).await, NONE);

    // A checkout may change line endings, and an editor the last one.
    migrations.write("1_a/up.sql", "CREATE TABLE a ()\r\n");
    assert_eq!(edited(&migrator).await, NONE);
    migrations.write("2_b/up.sql", "CREATE TABLE b (x int)");
    migrations.write("3_c/up.sql", "-- gone");
    assert_eq!(edited(&migrator).await, ["2_b", "3_c"]);

    // An edited migration does not stop the ones behind it.
    migrations.write("3_c/up.sql", "CREATE TABLE c ()");
    let migrations = migrations.with("4_d", "CREATE TABLE d ()", "DROP TABLE d");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let listening = migrator.clone().on_progress(move |progress| {
        if let Progress::Edited { name, .. } = progress {
            ears.lock().unwrap().push(name.clone());
        }
    });
    let report = finish(listening.run_pending()).await.unwrap();
    assert_eq!(names(&report.done), ["4_d"]);
    assert_eq!(*heard.lock().unwrap(), ["2_b"]);

    finish(migrator.redo(3)).await.unwrap();
    assert_eq!(edited(&migrator).await, NONE);
    finish(migrator.revert(4)).await.unwrap();
    assert_eq!(
        rows(&neon, "SELECT version FROM __diesel_neon_checksums").await,
        NONE
    );
    drop(migrations);
}

#[tokio::test]
async fn an_edit_that_cannot_be_known_is_not_reported() {
    let neon = start().await;
    let (migrations, migrator) = three(&neon);
    diesel(&neon, &migrations, &["run"]).await;
    migrations.write("1_a/up.sql", "CREATE TABLE a (x int)");
    assert_eq!(edited(&migrator).await, NONE);
    assert_eq!(
        rows(
            &neon,
            "SELECT coalesce(to_regclass('__diesel_neon_checksums')::text, '')"
        )
        .await,
        [""]
    );

    // The checksum does not count for a migration that the CLI has applied anew.
    finish(migrator.redo(1)).await.unwrap();
    migrations.write("3_c/up.sql", "CREATE TABLE c (x int)");
    assert_eq!(edited(&migrator).await, ["3_c"]);
    diesel(&neon, &migrations, &["redo"]).await;
    assert_eq!(edited(&migrator).await, NONE);
    // The checksums' table does not appear in the schema.
    neon.sql(
        "DROP TABLE a, b, c; CREATE TABLE books (id INT PRIMARY KEY); GRANT ALL ON books TO PUBLIC",
    )
    .await
    .unwrap();
    let schema = run_diesel(&neon, &migrations, &["print-schema"]).await;
    assert!(schema.contains("books (id)"), "{schema}");
    assert!(!schema.contains("checksums"), "{schema}");
}

#[tokio::test]
async fn a_role_that_may_not_create_tables_migrates_all_the_same() {
    let neon = start().await;
    neon.sql(
        "CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY, \
           run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP); \
         GRANT ALL ON __diesel_schema_migrations TO neondb_owner; \
         REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         ALTER SCHEMA public OWNER TO CURRENT_USER; \
         CREATE TABLE a (x int); GRANT ALL ON a TO neondb_owner",
    )
    .await
    .unwrap();
    let migrations = Folder::new().with("1_a", "INSERT INTO a VALUES (1)", "DELETE FROM a");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    finish(migrator.run_pending()).await.unwrap();
    assert_eq!(rows(&neon, "SELECT x FROM a").await, ["1"]);
    assert_eq!(versions(&neon).await, ["1"]);

    // A table of the same name that belongs to another role does not matter.
    neon.sql("CREATE TABLE __diesel_neon_checksums (version VARCHAR(50) PRIMARY KEY, run_on TIMESTAMP, checksum TEXT)")
        .await
        .unwrap();
    finish(migrator.redo(1)).await.unwrap();
    migrations.write("1_a/up.sql", "INSERT INTO a VALUES (2)");
    assert_eq!(edited(&migrator).await, NONE);
}

async fn edited(migrator: &Migrator) -> Vec<String> {
    let listed = finish(migrator.list()).await.unwrap();
    let edited = |state: &State| matches!(state, State::Applied { edited: true, .. });
    let edited = listed.into_iter().filter(|one| edited(&one.state));
    edited.map(|one| one.name).collect()
}
