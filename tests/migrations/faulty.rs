//! Migrations whose SQL would not do what it seems to do.

use diesel_neon::migration::{Direction, MigrateError, Migrator, folder};

use crate::helpers::*;

#[tokio::test]
async fn sql_that_would_do_something_else_than_it_seems_to_is_not_run() {
    let neon = start().await;
    let ends = |statement: &str, line: usize| {
        format!("EndsTransaction {{ statement: {statement:?}, line: {line} }}")
    };
    for (sql, expected) in [
        ("", "Empty"),
        ("-- Your SQL goes here\n", "Empty"),
        ("\u{feff}CREATE TABLE b ();", "ByteOrderMark"),
        ("CREATE TABLE b ();\n-- \0\n", "ZeroByte { line: 2 }"),
        ("BEGIN;\nCREATE TABLE b ();\nCOMMIT;", &ends("COMMIT", 3)),
        ("CREATE TABLE b (); ROLLBACK;", &ends("ROLLBACK", 1)),
        (
            "CREATE TABLE b ();\nrollback work; begin; CREATE TABLE c ()",
            &ends("rollback work", 2),
        ),
    ] {
        let migrations = Folder::new()
            .with("1_a", "CREATE TABLE a ()", "")
            .with("2_b", "", "");
        migrations.write("2_b/up.sql", sql);
        let source = folder(Some(&migrations.0)).unwrap();
        let migrator = Migrator::new(&url(&neon), source).unwrap();
        for error in [
            finish(migrator.run_pending()).await.unwrap_err(),
            finish(migrator.dry_run()).await.unwrap_err(),
        ] {
            let MigrateError::Faulty { name, fault, .. } = &error else {
                panic!("{sql}: {error:?}");
            };
            assert_eq!((name.as_str(), &*format!("{fault:?}")), ("2_b", expected));
            let said = error.to_string();
            assert!(
                said.starts_with("the migration 2_b cannot be applied: its up.sql "),
                "{said}"
            );
        }
        // The migration before the faulty one is not run either.
        assert_eq!(tables(&neon).await, NONE);
        assert_eq!(versions(&neon).await, NONE);
    }
}

#[tokio::test]
async fn what_cannot_be_reverted_as_it_stands_is_not() {
    let neon = start().await;
    let migrations = Folder::new().with("1_a", "CREATE TABLE a ()", "");
    migrations.write(
        "1_a/down.sql",
        "-- This file should undo anything in `up.sql`",
    );
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    finish(migrator.run_pending()).await.unwrap();
    for sql in [
        "-- This file should undo anything in `up.sql`",
        "DROP TABLE a; END",
    ] {
        migrations.write("1_a/down.sql", sql);
        let error = finish(migrator.revert(1)).await.unwrap_err();
        assert!(matches!(
            error,
            MigrateError::Faulty {
                direction: Direction::Down,
                ..
            }
        ));
        assert_eq!(tables(&neon).await, ["a"]);
        assert_eq!(versions(&neon).await, ["1"]);
    }
}

#[tokio::test]
async fn a_transaction_of_its_own_must_be_committed() {
    let neon = start().await;
    let migrations = Folder::new()
        .with("1_a", "CREATE TABLE a ()", "")
        .outside_of_a_transaction("1_a");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    for (sql, expected) in [
        (
            "BEGIN; CREATE TABLE a (); ROLLBACK",
            "RollsBack { statement: \"ROLLBACK\", line: 1 }",
        ),
        ("BEGIN; CREATE TABLE a ()", "LeavesTransactionOpen"),
    ] {
        migrations.write("1_a/up.sql", sql);
        let error = finish(migrator.run_pending()).await.unwrap_err();
        assert!(
            matches!(&error, MigrateError::Faulty { fault, .. } if format!("{fault:?}") == expected),
            "{error:?}"
        );
        assert_eq!(tables(&neon).await, NONE);
        assert_eq!(versions(&neon).await, NONE);
    }
    migrations.write("1_a/up.sql", "BEGIN; CREATE TABLE a (); COMMIT");
    finish(migrator.run_pending()).await.unwrap();
    assert_eq!(tables(&neon).await, ["a"]);
    assert_eq!(versions(&neon).await, ["1"]);
}

#[test]
fn metadata_says_whether_it_runs_in_a_transaction_and_nothing_else() {
    let migrations = Folder::new().with("1_a", "SELECT 1", "");
    for (text, reason) in [
        ("run_in_transaction = flase", "line 1: "),
        ("# none\nrun_in_transaction false", "line 2: "),
        (
            "",
            "it lacks run_in_transaction, which the diesel CLI then takes for false; write ",
        ),
        ("# run_in_transaction = true", "it lacks run_in_transaction"),
        (
            "run_in_transactions = false",
            "unknown key run_in_transactions; the only one is ",
        ),
        ("run_in_transaction = true\nlock = 1", "unknown key lock; "),
        (
            "run_in_transaction = 'false'",
            "run_in_transaction must be true or false",
        ),
    ] {
        migrations.write("1_a/metadata.toml", text);
        let error = folder(Some(&migrations.0)).err().unwrap();
        let file = migrations.0.join("1_a/metadata.toml");
        let expected = format!("{}: {reason}", file.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(matches!(error, MigrateError::Config { path, .. } if path == file));
    }
    for text in [
        "run_in_transaction = true",
        "# why\nrun_in_transaction=false # so\n",
    ] {
        migrations.write("1_a/metadata.toml", text);
        folder(Some(&migrations.0)).unwrap();
    }
}

#[tokio::test]
async fn sql_in_another_encoding_is_told_with_its_mend() {
    let neon = start().await;
    for sql in [b"\xff\xfeS\0E\0".as_slice(), b"SELECT '\xe9'"] {
        let migrations = Folder::new().with("1_a", "", "");
        migrations.write("1_a/up.sql", sql);
        let source = folder(Some(&migrations.0)).unwrap();
        let migrator = Migrator::new(&url(&neon), source).unwrap();
        let error = finish(migrator.run_pending()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the migration 1_a cannot be applied: its up.sql is not UTF-8; save it as UTF-8"
        );
    }
}
