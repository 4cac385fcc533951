//! Migrations: under a lock, over the direct endpoint, each as a whole or not at all.

#[path = "../common/mod.rs"]
mod common;
mod edited;
mod faulty;
#[path = "../common/front.rs"]
mod front;
mod helpers;
mod timeouts;

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::BoxableConnection;
use diesel::migration::{
    self, Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion,
};
use diesel::pg::Pg;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use diesel_neon::DatabaseUrl;
use diesel_neon::migration::{
    Direction, LOCK_KEY, MigrateError, Migrator, Progress, State, folder,
};
use neon_sim::NeonSim;
use tokio::time::sleep;

use self::front::Front;
use self::helpers::*;

#[tokio::test]
async fn the_direct_endpoint_is_used_whatever_url_is_given() {
    let neon = start().await;
    let before = neon.counters();
    let migrations = Folder::new().with("1_a", "CREATE TABLE a ()", "DROP TABLE a");
    for url in [neon.pooled_url(), neon.url()] {
        let url = DatabaseUrl::parse(&url).unwrap();
        let migrator = Migrator::new(&url, folder(Some(&migrations.0)).unwrap()).unwrap();
        finish(migrator.run_pending()).await.unwrap();
    }
    let counted = neon.counters() - before;
    assert_eq!(counted.pooled.connections, 0);
    assert_eq!(counted.direct.connections, 2);
}

#[tokio::test]
async fn a_pooler_is_refused_where_no_direct_endpoint_can_be_told() {
    let neon = start().await;
    let migrations = Folder::new().with("1_a", "CREATE TABLE a ()", "DROP TABLE a");
    let hidden = DatabaseUrl::parse(&neon.pgbouncer_url()).unwrap();
    let migrator = Migrator::new(&hidden, folder(Some(&migrations.0)).unwrap()).unwrap();
    let error = finish(migrator.run_pending()).await.unwrap_err();
    assert!(
        matches!(error, MigrateError::NoDirectEndpoint { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("DATABASE_URL_UNPOOLED"));
    assert_eq!(tables(&neon).await, NONE);

    let twice = neon.pooled_url().replace("-pooler", "-pooler-pooler");
    let twice = DatabaseUrl::parse(&twice).unwrap();
    let error = Migrator::new(&twice, folder(Some(&migrations.0)).unwrap()).unwrap_err();
    assert!(matches!(error, MigrateError::NoDirectEndpoint { .. }));
}

#[tokio::test]
async fn embedded_migrations_run_like_a_folder() {
    const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

    let neon = start().await;
    let migrator = Migrator::new(&url(&neon), MIGRATIONS).unwrap();
    let report = finish(migrator.run_pending()).await.unwrap();
    assert_eq!(
        names(&report.done),
        [
            "2026-01-05-090000_create_books",
            "2026-01-12-090000_create_book_requests"
        ]
    );
    assert_eq!(report.done[0].version, "20260105090000");

    let from_folder = Migrator::new(&url(&neon), folder(None).unwrap()).unwrap();
    assert_eq!(
        finish(from_folder.list()).await.unwrap(),
        finish(migrator.list()).await.unwrap()
    );
    assert_eq!(finish(from_folder.pending()).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_pending_is_listed_shown_applied_reverted_and_redone() {
    let neon = start().await;
    let (migrations, migrator) = three(&neon);

    // Listing changes nothing; it does not create the table either.
    let pending = finish(migrator.pending()).await.unwrap();
    let scripts = finish(migrator.dry_run()).await.unwrap();
    assert_eq!(tables(&neon).await, NONE);
    assert_eq!(pending.len(), 3);
    assert_eq!(scripts.len(), 3);
    assert_eq!(scripts[1].batches, ["CREATE TABLE b ()"]);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let migrator = migrator.on_progress(move |progress| {
        heard.lock().unwrap().push(match progress {
            Progress::Started { name, .. } => format!("start {name}"),
            Progress::Finished(done) => format!("done {}", done.name),
            other => format!("{other:?}"),
        });
    });
    let report = finish(migrator.run_pending()).await.unwrap();
    assert_eq!(names(&report.done), ["1_a", "2_b", "3_c"]);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "start 1_a",
            "done 1_a",
            "start 2_b",
            "done 2_b",
            "start 3_c",
            "done 3_c"
        ]
    );
    let again = finish(migrator.run_pending()).await.unwrap();
    assert_eq!(again.done, []);

    let report = finish(migrator.revert(2)).await.unwrap();
    assert_eq!(names(&report.done), ["3_c", "2_b"]);
    assert!(report.done.iter().all(|d| d.direction == Direction::Down));
    assert_eq!(tables(&neon).await, ["a"]);

    // The number exceeds the applied migrations.
    let report = finish(migrator.redo(9)).await.unwrap();
    assert_eq!(names(&report.done), ["1_a", "1_a"]);
    assert_eq!(tables(&neon).await, ["a"]);

    finish(migrator.run_pending()).await.unwrap();
    fs::remove_dir_all(migrations.0.join("2_b")).unwrap();
    let listed = finish(migrator.list()).await.unwrap();
    let unknown = |state: &State| matches!(state, State::Unknown { .. });
    let states: Vec<_> = listed
        .iter()
        .map(|one| (one.name.as_str(), unknown(&one.state)))
        .collect();
    assert_eq!(states, [("1_a", false), ("2", true), ("3_c", false)]);
    let error = finish(migrator.revert(usize::MAX)).await.unwrap_err();
    assert!(matches!(error, MigrateError::Unknown { .. }), "{error:?}");
    // Nothing is reverted unless all can be.
    assert_eq!(tables(&neon).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_redo_that_fails_leaves_everything_as_it_was() {
    let neon = start().await;
    let (migrations, migrator) = three(&neon);
    finish(migrator.run_pending()).await.unwrap();
    let migrations = migrations.with("3_c", "CREATE TABLE c (); SELECT 1/0", "DROP TABLE c");
    let error = finish(migrator.redo(2)).await.unwrap_err();
    assert_eq!(failed(&error).name(), "3_c");
    assert_eq!(error.before(), []);
    assert_eq!(tables(&neon).await, ["a", "b", "c"]);
    assert_eq!(versions(&neon).await, ["1", "2", "3"]);

    fs::remove_file(migrations.0.join("3_c/down.sql")).unwrap();
    let error = finish(migrator.revert(3)).await.unwrap_err();
    assert!(matches!(error, MigrateError::Irreversible { .. }));
    assert_eq!(tables(&neon).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn sixteen_processes_run_each_migration_once() {
    let neon = start().await;
    let migrations = Folder::new()
        .with("1_a", "CREATE TABLE a (x int)", "")
        // The index waits for the snapshots of the sessions that wait for the lock.
        .with("2_b", "CREATE INDEX CONCURRENTLY ON a (x)", "")
        .outside_of_a_transaction("2_b")
        .with("3_c", "INSERT INTO a VALUES (1); SELECT pg_sleep(0.3)", "");
    let processes = (0..16).map(|_| {
        let output = process(&neon, &migrations).output();
        tokio::spawn(async move { finish(output).await.unwrap() })
    });
    let mut ran = Vec::new();
    for process in processes.collect::<Vec<_>>() {
        let output = process.await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        ran.extend(text.lines().filter_map(|line| {
            let name = line.split_once("applied ")?.1;
            Some(name.to_owned())
        }));
    }
    ran.sort();
    assert_eq!(ran, ["1_a", "2_b", "3_c"]);
    assert_eq!(rows(&neon, "SELECT x FROM a").await, ["1"]);
    assert_eq!(versions(&neon).await, ["1", "2", "3"]);
}

/// The processes run this test, with the database in the environment.
#[tokio::test]
async fn one_process() {
    let url = std::env::var("MIGRATE");
    let migrator = match url {
        Ok(url) => {
            Migrator::new(&DatabaseUrl::parse(&url).unwrap(), folder(None).unwrap()).unwrap()
        }
        Err(_) if std::env::var("MIGRATE_FROM_ENV").is_ok() => {
            Migrator::from_env(folder(None).unwrap()).unwrap()
        }
        Err(_) => return,
    };
    for done in migrator.run_pending().await.unwrap().done {
        println!("\napplied {}", done.name);
    }
}

#[tokio::test]
async fn the_environment_is_what_from_env_says_and_a_dotenv_file_where_it_is_silent() {
    let (neon, other) = (start().await, start().await);
    let migrations = Folder::new().with("1_a", "CREATE TABLE a ()", "");
    let dotenv = |neon: &NeonSim| format!("DATABASE_URL='{}'", neon.pooled_url());
    migrations.write(".env", dotenv(&neon));
    let run = |variables: &[(&str, &str)]| {
        let mut process = process(&neon, &migrations);
        process.env_remove("MIGRATE").env("MIGRATE_FROM_ENV", "1");
        process.current_dir(&migrations.0);
        process.envs(variables.iter().copied()).output()
    };
    let output = finish(run(&[])).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tables(&neon).await, ["a"]);

    // The file has a direct URL of another database.
    migrations.write(".env", format!("DIRECT_URL='{}'", neon.url()));
    let elsewhere = other.pooled_url();
    let output = finish(run(&[("DATABASE_URL", &elsewhere)])).await.unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(other.counters().direct.attempts, 0);
    let direct = other.url();
    let both = [("DATABASE_URL", &*elsewhere), ("DIRECT_URL", &*direct)];
    let output = finish(run(&both)).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tables(&other).await, ["a"]);
}

#[tokio::test]
async fn the_holder_of_the_lock_is_named_and_waited_for() {
    let neon = start().await;
    let (_migrations, migrator) = three(&neon);
    let other = format!("{}&application_name=deploy-41", neon.url());
    let other = DatabaseUrl::parse(&other).unwrap();
    let slow = Folder::new().with("0_slow", "SELECT pg_sleep(60)", "");
    let slow = Migrator::new(&other, folder(Some(&slow.0)).unwrap()).unwrap();
    let slow = tokio::spawn(async move { slow.run_pending().await });
    until(&neon, BUSY, "1").await;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let migrator = migrator.on_progress(move |progress| {
        if let Progress::Waiting { holder, .. } = progress {
            heard.lock().unwrap().push(holder.clone());
        }
    });
    let impatient = migrator.clone().lock_wait(Duration::from_millis(300));
    let error = finish(impatient.run_pending()).await.unwrap_err();
    let MigrateError::Locked {
        holder: Some(holder),
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    let pid = rows(
        &neon,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory'",
    )
    .await;
    assert_eq!(pid, [holder.pid.to_string()]);
    assert_eq!(holder.application_name.as_deref(), Some("deploy-41"));
    assert!(holder.since.is_some());
    assert!(error.to_string().contains("deploy-41"), "{error}");
    assert_eq!(
        seen.lock().unwrap().as_slice(),
        std::slice::from_ref(holder)
    );
    assert_eq!(tables(&neon).await, NONE);

    let patient = tokio::spawn(async move { migrator.run_pending().await });
    while seen.lock().unwrap().len() < 2 {
        sleep(TICK).await;
    }
    // Dropping the future has freed the lock.
    slow.abort();
    let report = finish(patient).await.unwrap().unwrap();
    assert_eq!(names(&report.done), ["1_a", "2_b", "3_c"]);
    assert!(!report.waited.is_zero());
}

#[tokio::test]
async fn a_failing_migration_names_itself_its_statement_the_position_and_the_sqlstate() {
    let neon = start().await;
    let migrations = Folder::new()
        .with("1_a", "CREATE TABLE a (x int PRIMARY KEY)", "")
        .with(
            "2_b",
            "-- für später;\nCREATE TABLE b ();\n\nALTER TABLE a\n    ADD y intt;\n",
            "",
        )
        .with("3_c", "CREATE TABLE c ()", "");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();

    let error = finish(migrator.run_pending()).await.unwrap_err();
    let failure = failed(&error);
    assert_eq!(failure.name(), "2_b");
    assert_eq!(failure.statement(), Some("ALTER TABLE a\n    ADD y intt"));
    assert_eq!((failure.line(), failure.column()), (Some(5), Some(11)));
    assert_eq!(error.sqlstate(), Some("42704"));
    assert_eq!(
        error.to_string(),
        "the migration 2_b failed at line 5, column 11 of its up.sql: type \"intt\" does not exist \
         (SQLSTATE 42704); the statement: ALTER TABLE a ADD y intt"
    );
    assert_eq!(names(error.before()), ["1_a"]);
    assert_eq!(tables(&neon).await, ["a"]);
    assert_eq!(versions(&neon).await, ["1"]);
    until(&neon, LOCKS, "0").await;

    // The server gives no position if a statement fails as it runs.
    let migrations = migrations.with(
        "2_b",
        "INSERT INTO a VALUES (1);\n/* and\n again */ INSERT INTO a\n VALUES (1);",
        "",
    );
    let error = finish(migrator.run_pending()).await.unwrap_err();
    let failure = failed(&error);
    assert_eq!(failure.statement(), Some("INSERT INTO a\n VALUES (1)"));
    assert_eq!((failure.line(), failure.column()), (Some(3), Some(11)));
    assert_eq!(failure.sqlstate(), Some("23505"));
    assert_eq!(failure.detail(), Some("Key (x)=(1) already exists."));

    // There is no statement if the commit fails.
    let _migrations = migrations.with(
        "2_b",
        "CREATE TABLE d (x int REFERENCES a DEFERRABLE INITIALLY DEFERRED); INSERT INTO d VALUES (7)",
        "",
    );
    let error = finish(migrator.run_pending()).await.unwrap_err();
    let failure = failed(&error);
    assert_eq!(
        (failure.statement(), failure.sqlstate()),
        (None, Some("23503"))
    );
    assert!(error.to_string().contains("at its commit"), "{error}");
    assert_eq!(tables(&neon).await, ["a"]);
}

#[tokio::test]
async fn what_cannot_run_in_a_transaction_runs_outside_of_one() {
    let neon = start().await;
    let migrations = Folder::new()
        .with("1_a", "CREATE TABLE a (x int)", "")
        .with(
            "2_b",
            "CREATE INDEX CONCURRENTLY a_x ON a (x)",
            "DROP INDEX a_x",
        );
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    let error = finish(migrator.run_pending()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25001"));
    assert!(error.to_string().contains("run_in_transaction"), "{error}");

    let _migrations = migrations.outside_of_a_transaction("2_b");
    let report = finish(migrator.run_pending()).await.unwrap();
    assert_eq!(names(&report.done), ["2_b"]);
    finish(migrator.redo(1)).await.unwrap();
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_x'::regclass";
    assert_eq!(rows(&neon, valid).await, ["t"]);
}

#[tokio::test]
async fn a_concurrent_index_waits_for_longer_than_the_lock_timeout_and_a_table_does_not() {
    let neon = start().await;
    neon.sql(
        "CREATE TABLE a (x int); GRANT ALL ON a TO PUBLIC; ALTER TABLE a OWNER TO neondb_owner",
    )
    .await
    .unwrap();
    let reader = reader(&neon).await;

    let migrations = Folder::new().with("1_a", "SELECT 1;\nALTER TABLE a ADD y int", "");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap())
        .unwrap()
        .lock_timeout(Duration::from_millis(100));
    let error = finish(migrator.run_pending()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("55P03"));
    assert_eq!(failed(&error).line(), Some(2));
    assert!(error.to_string().contains("quieter moment"), "{error}");

    let _migrations = migrations
        .with("1_a", "CREATE INDEX CONCURRENTLY ON a (x)", "")
        .outside_of_a_transaction("1_a");
    let run = tokio::spawn(async move { migrator.run_pending().await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND query LIKE 'CREATE INDEX%' AND now() - query_start > '300 ms'";
    until(&neon, waits, "1").await;
    drop(reader);
    finish(run).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_statement_that_runs_away_is_ended() {
    let neon = start().await;
    let migrations = Folder::new().with("1_a", "SELECT pg_sleep(600)", "");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap())
        .unwrap()
        .statement_timeout(Duration::from_millis(100));
    let error = finish(migrator.run_pending()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    assert!(error.to_string().contains("statement_timeout"), "{error}");
}

#[tokio::test]
async fn a_dropped_future_leaves_nothing_and_the_lock_free() {
    let neon = start().await;
    let migrations = slow_second();
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    tokio::select! {
        _ = migrator.run_pending() => panic!("it is slow"),
        () = until(&neon, BUSY, "1") => {}
    }
    nothing_but_the_first(&neon).await;
}

#[tokio::test]
async fn a_future_dropped_outside_of_a_transaction_leaves_nothing_unnoted() {
    let neon = start().await;
    let migrations = slow_second().outside_of_a_transaction("2_b");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    tokio::select! {
        _ = migrator.run_pending() => panic!("it is slow"),
        () = until(&neon, BUSY, "1") => {}
    }
    nothing_but_the_first(&neon).await;

    // A statement that ends all the same is recorded.
    let migrations = Folder::new()
        .with("1_a", "", "")
        .with("3_c", UNSTOPPABLE, "")
        .outside_of_a_transaction("3_c");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    tokio::select! {
        _ = migrator.run_pending() => panic!("it is slow"),
        () = until(&neon, BUSY, "1") => {}
    }
    until(&neon, LOCKS, "0").await;
    assert_eq!(versions(&neon).await, ["1", "3"]);
}

#[tokio::test]
async fn a_cancel_request_that_comes_late_does_not_stop_the_record_of_a_migration() {
    let neon = start().await;
    let mut front = Front::new(&neon.postgres_url()).await;
    let migrations = Folder::new()
        .with("1_a", "", "")
        .with(
            "2_b",
            "CREATE TABLE b (); SELECT pg_advisory_xact_lock(7)",
            "",
        )
        .outside_of_a_transaction("2_b");
    let url = DatabaseUrl::parse(&front.url).unwrap();
    let migrator = Migrator::new(&url, folder(Some(&migrations.0)).unwrap()).unwrap();
    let writer = client(&neon).await;
    writer
        .batch_execute("SELECT pg_advisory_lock(7)")
        .await
        .unwrap();
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    tokio::select! {
        _ = migrator.run_pending() => panic!("it waits for a lock"),
        () = until(&neon, waiting, "1") => {}
    }
    front.asked().await;
    // The statement ends before the request comes, and the record waits for a lock.
    let hold = "BEGIN; LOCK TABLE __diesel_schema_migrations IN EXCLUSIVE MODE; SELECT pg_advisory_unlock(7)";
    writer.batch_execute(hold).await.unwrap();
    let record = "SELECT query_start::text FROM pg_stat_activity \
                  WHERE wait_event_type = 'Lock' AND query LIKE '%__diesel_schema_migrations%'";
    let record = async || loop {
        if let Some(began) = rows(&neon, record).await.pop() {
            return began;
        }
        sleep(TICK).await;
    };
    let first = finish(record()).await;
    front.pass_on().await;
    let other = async |than: &str| loop {
        let began = record().await;
        if began != than {
            return began;
        }
    };
    let second = finish(other(&first)).await;
    // The server signals the process twice.
    let signal = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                  WHERE wait_event_type = 'Lock' AND query LIKE '%__diesel_schema_migrations%'";
    rows(&neon, signal).await;
    finish(other(&second)).await;
    drop(writer);
    until(&neon, LOCKS, "0").await;
    assert_eq!(tables(&neon).await, ["b"]);
    assert_eq!(versions(&neon).await, ["1", "2"]);
}

#[tokio::test]
async fn a_lost_connection_leaves_nothing_and_the_lock_free() {
    let neon = start().await;
    let migrations = slow_second();
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    let run = tokio::spawn(async move { migrator.run_pending().await });
    until(&neon, BUSY, "1").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(rows(&neon, end).await, ["t"]);
    let error = finish(run).await.unwrap().unwrap_err();
    let MigrateError::Lost { migration, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(migration.as_deref(), Some("2_b"));
    assert_eq!(names(error.before()), ["1_a"]);
    nothing_but_the_first(&neon).await;
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_and_the_lock_free() {
    let neon = start().await;
    let migrations = slow_second();
    // The second route has no proxy, which would tell the server of the lost client.
    for url in [neon.pooled_url(), neon.postgres_url()] {
        let mut process = process(&neon, &migrations);
        let mut child = process.env("MIGRATE", url).spawn().unwrap();
        until(&neon, BUSY, "1").await;
        child.kill().await.unwrap();
        nothing_but_the_first(&neon).await;
    }
}

#[test]
fn a_current_thread_runtime_is_enough() {
    let mut current = tokio::runtime::Builder::new_current_thread();
    let runtime = current.enable_all().build().unwrap();
    runtime.block_on(async {
        let neon = start().await;
        let (_migrations, migrator) = three(&neon);
        let (report, pending) = tokio::join!(migrator.run_pending(), migrator.pending());
        assert_eq!(report.unwrap().done.len(), 3);
        pending.unwrap();
    });
}

#[tokio::test]
async fn settings_of_one_migration_do_not_reach_the_next() {
    let neon = start().await;
    let migrations = Folder::new()
        .with(
            "1_a",
            "SELECT set_config('search_path', '', false); SET lock_timeout = 0; SET ROLE neondb_owner; \
             SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
            "",
        )
        .with(
            "2_b",
            "CREATE TABLE b AS SELECT current_setting('lock_timeout') || ', ' || \
             current_setting('transaction_isolation') AS x",
            "",
        );
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    finish(migrator.run_pending()).await.unwrap();
    assert_eq!(
        rows(&neon, "SELECT x FROM b").await,
        ["10s, read committed"]
    );
    assert_eq!(versions(&neon).await, ["1", "2"]);
}

#[tokio::test]
async fn the_role_of_one_migration_does_not_reach_the_next() {
    let neon = start().await;
    neon.sql(
        "ALTER ROLE neondb_owner SUPERUSER; CREATE ROLE other; GRANT ALL ON SCHEMA public TO other",
    )
    .await
    .unwrap();
    let become_other =
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO other; SET SESSION AUTHORIZATION other";
    let migrations = Folder::new().with("1_a", become_other, "").with(
        "2_b",
        "CREATE TABLE b AS SELECT session_user::text AS x",
        "",
    );
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    finish(migrator.run_pending()).await.unwrap();
    assert_eq!(rows(&neon, "SELECT x FROM b").await, ["neondb_owner"]);
}

#[tokio::test]
async fn a_migration_that_asks_for_input_fails() {
    let neon = start().await;
    let migrations = Folder::new().with("1_a", "CREATE TABLE a ()", "").with(
        "2_b",
        "CREATE TABLE b (x int);\nCOPY b FROM STDIN;",
        "",
    );
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    let error = finish(migrator.run_pending()).await.unwrap_err();
    assert_eq!(failed(&error).statement(), Some("COPY b FROM STDIN"));
    assert!(error.to_string().contains("nothing to read"), "{error}");
    nothing_but_the_first(&neon).await;
}

#[tokio::test]
async fn odd_folders_are_named() {
    let neon = start().await;
    let missing = std::env::temp_dir().join("no-such-folder/migrations");
    let error = folder(Some(&missing)).err().unwrap();
    assert!(matches!(error, MigrateError::NoFolder { .. }));
    assert!(error.to_string().contains("no-such-folder"), "{error}");

    let migrations = Folder::new();
    fs::create_dir(migrations.0.join("notes")).unwrap();
    let error = folder(Some(&migrations.0)).err().unwrap();
    assert!(matches!(error, MigrateError::NoMigration { .. }));
    assert!(error.to_string().contains("notes"), "{error}");

    let migrations = Folder::new()
        .with("1-0_a", "SELECT 1", "")
        .with("10_b", "SELECT 2", "");
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap()).unwrap();
    let error = finish(migrator.run_pending()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "1-0_a and 10_b have the same version, 10; rename one of them"
    );
}

#[tokio::test]
async fn a_migration_can_be_written_in_rust() {
    struct Twice;
    struct Name;
    struct Metadata;

    impl MigrationSource<Pg> for Twice {
        fn migrations(&self) -> migration::Result<Vec<Box<dyn Migration<Pg>>>> {
            Ok(vec![Box::new(Twice)])
        }
    }

    impl Migration<Pg> for Twice {
        fn run(&self, connection: &mut dyn BoxableConnection<Pg>) -> migration::Result<()> {
            for table in ["a", "b"] {
                connection.batch_execute(&format!("CREATE TABLE {table} ()"))?;
            }
            Ok(())
        }

        fn revert(&self, connection: &mut dyn BoxableConnection<Pg>) -> migration::Result<()> {
            connection.batch_execute("DROP TABLE a, b")?;
            Ok(())
        }

        fn metadata(&self) -> &dyn MigrationMetadata {
            &Metadata
        }

        fn name(&self) -> &dyn MigrationName {
            &Name
        }
    }

    impl MigrationName for Name {
        fn version(&self) -> MigrationVersion<'_> {
            "o'\\clock".into()
        }
    }

    impl std::fmt::Display for Name {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("twice")
        }
    }

    impl MigrationMetadata for Metadata {}

    let neon = start().await;
    let migrator = Migrator::new(&url(&neon), Twice).unwrap();
    finish(migrator.run_pending()).await.unwrap();
    assert_eq!(tables(&neon).await, ["a", "b"]);
    assert_eq!(versions(&neon).await, ["o'\\clock"]);
    finish(migrator.revert(1)).await.unwrap();
    assert_eq!(tables(&neon).await, NONE);
    assert_eq!(versions(&neon).await, NONE);
}

#[tokio::test]
async fn the_diesel_cli_and_the_migrator_can_be_used_in_turn() {
    let neon = start().await;
    let (migrations, migrator) = three(&neon);

    finish(migrator.run_pending()).await.unwrap();
    let ours = rows(&neon, MIGRATION_TABLE).await;
    assert_eq!(
        diesel(&neon, &migrations, &["list"]).await,
        "Migrations:\n  [X] 1_a\n  [X] 2_b\n  [X] 3_c\n"
    );
    diesel(&neon, &migrations, &["run"]).await;
    diesel(&neon, &migrations, &["revert", "--number", "2"]).await;
    assert_eq!(tables(&neon).await, ["a"]);
    let pending = finish(migrator.pending()).await.unwrap();
    assert_eq!(pending.len(), 2);
    diesel(&neon, &migrations, &["redo"]).await;
    diesel(&neon, &migrations, &["run"]).await;
    assert_eq!(finish(migrator.run_pending()).await.unwrap().done, []);
    finish(migrator.redo(3)).await.unwrap();
    finish(migrator.revert(3)).await.unwrap();
    assert_eq!(diesel(&neon, &migrations, &["pending"]).await, "true\n");

    // Now the other way round: the CLI creates the table.
    neon.sql("DROP TABLE __diesel_schema_migrations")
        .await
        .unwrap();
    diesel(&neon, &migrations, &["run"]).await;
    assert_eq!(rows(&neon, MIGRATION_TABLE).await, ours);
    assert_eq!(finish(migrator.pending()).await.unwrap(), []);
    let report = finish(migrator.revert(1)).await.unwrap();
    assert_eq!(names(&report.done), ["3_c"]);
    assert_eq!(
        diesel(&neon, &migrations, &["list"]).await,
        "Migrations:\n  [X] 1_a\n  [X] 2_b\n  [ ] 3_c\n"
    );
}

#[tokio::test]
async fn the_documented_key_keeps_migrators_out_and_one_that_gives_up_leaves_no_session() {
    let neon = start().await;
    let (_migrations, migrator) = three(&neon);
    let url = DatabaseUrl::parse(&neon.postgres_url()).unwrap();
    let config = url.to_tokio_postgres();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = format!("SELECT pg_advisory_lock({LOCK_KEY})");
    client.batch_execute(&lock).await.unwrap();

    let impatient = migrator.clone().lock_wait(Duration::ZERO);
    let error = finish(impatient.run_pending()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Locked { .. }), "{error:?}");

    let waits = Arc::new(tokio::sync::Notify::new());
    let heard = Arc::clone(&waits);
    let migrator = migrator.on_progress(move |_| heard.notify_one());
    tokio::select! {
        _ = migrator.run_pending() => panic!("the lock is held"),
        () = finish(waits.notified()) => {}
    }
    drop(client);
    until(
        &neon,
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'",
        "0",
    )
    .await;
    assert_eq!(tables(&neon).await, NONE);
}
