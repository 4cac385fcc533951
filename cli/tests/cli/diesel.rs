//! `diesel-neon diesel`, and what the real CLI does through it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use neon_sim::NeonSim;

use crate::POOLED;
use crate::folder::{Folder, Text, repository};

#[test]
fn diesel_gets_the_direct_url_in_its_environment_only() {
    let folder = Folder::new("environment");
    let run = folder
        .with_shell_as_diesel()
        .args(["diesel", "-c"])
        .arg(
            r#"echo "$DATABASE_URL $PGPASSWORD$PGHOSTADDR$PGSERVICE$PGDATABASE$PGUSER"
            cat /proc/$$/cmdline || ps -wwo args= -p $$"#,
        )
        .env("DATABASE_URL", POOLED)
        .env("PGHOSTADDR", "203.0.113.5")
        .envs(["PGSERVICE", "PGDATABASE", "PGUSER"].map(|name| (name, "other")))
        .output();
    let out = Text::of(run.unwrap());
    let (environment, arguments) = out.stdout.split_once('\n').unwrap();

    assert!(
        environment
            .starts_with("postgresql://u@ep-a-1.x.aws.neon.tech:5432/db?sslmode=verify-full"),
        "{environment}"
    );
    assert!(environment.ends_with(" s3cr@et"), "{environment}");
    assert!(!arguments.contains("s3cr"), "{arguments}");
    assert!(!arguments.contains("neon.tech"), "{arguments}");
}

/// libpq looks into the environment for what a URL leaves open.
#[tokio::test]
async fn diesel_goes_to_the_database_that_migrate_names() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    neon.sql("CREATE DATABASE neondb_owner OWNER neondb_owner")
        .await
        .unwrap();
    let url = neon.postgres_url().replace("/neondb?", "/?");
    let folder = Folder::new("left_open");
    folder.write("migrations/1_a/up.sql", "CREATE TABLE a ();");
    let run = |mut command: Command, arguments: &[&str]| {
        command
            .env("DATABASE_URL", &url)
            .env("PGDATABASE", "neondb");
        let out = Text::of(command.args(arguments).output().unwrap());
        assert_eq!(out.code, Some(0), "{out:?}");
        out
    };
    let out = run(folder.command(), &["migrate", "run"]);
    assert!(out.stderr.contains("database neondb_owner on "), "{out:?}");
    let out = run(folder.with_diesel(), &["diesel", "migration", "list"]);
    assert!(out.stdout.contains("[X] 1_a"), "{out:?}");
    let elsewhere = "SELECT count(*) FROM pg_class WHERE relname = '__diesel_schema_migrations'";
    let there = neon.sql(elsewhere).await.unwrap();
    assert_eq!(there, [[Some("0".to_owned())]]);
}

#[test]
fn arguments_reach_diesel_untouched() {
    let folder = Folder::new("arguments");
    let arguments = [
        "--help", "-V", "url", "--direct", "a b", "", "--", "--x=*", "'",
    ];
    let run = folder
        .with_shell_as_diesel()
        .args(["diesel", "-c", r#"printf '<%s>' "$@""#, "diesel"])
        .args(arguments)
        .output();
    let out = Text::of(run.unwrap());
    assert_eq!(out.stdout, arguments.map(|a| format!("<{a}>")).concat());
}

#[test]
fn the_exit_status_of_diesel_comes_back() {
    let folder = Folder::new("status");
    for url in [POOLED, ""] {
        let run = |script| {
            let mut command = folder.with_shell_as_diesel();
            command.args(["diesel", "-c", script]);
            command.env("DATABASE_URL", url).output().unwrap().status
        };
        assert_eq!(run("exit 0").code(), Some(0));
        assert_eq!(run("exit 42").code(), Some(42));
        let killed = run("kill -TERM $$");
        assert!(
            killed.signal() == Some(15) || killed.code() == Some(128 + 15),
            "{killed}"
        );
    }
}

#[test]
fn a_missing_url_stops_only_what_needs_one() {
    let folder = Folder::new("missing_url");
    let run = |arguments: &[&str]| Text::of(folder.with_diesel().args(arguments).output().unwrap());

    fs::create_dir(folder.path("migrations")).unwrap();
    let out = run(&["diesel", "migration", "generate", "create_pages"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    let mut files = fs::read_dir(folder.path("migrations")).unwrap();
    let is_it = |name: &std::ffi::OsStr| name.as_encoded_bytes().ends_with(b"_create_pages");
    assert!(files.any(|file| is_it(&file.unwrap().file_name())));
    let out = run(&["diesel", "completions", "bash"]);
    assert_eq!((out.code, &*out.stderr), (Some(0), ""));
    let out = run(&["diesel", "--version"]);
    assert_eq!((out.code, &*out.stderr), (Some(0), ""));

    let out = run(&["diesel", "migration", "run"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    let note = out.stderr.lines().last().unwrap();
    assert!(
        note.starts_with("diesel-neon: note: no database URL in the environment: looked at "),
        "{out:?}"
    );
}

#[test]
fn an_empty_url_counts_as_none() {
    let folder = Folder::new("empty_url");
    let run = || {
        let mut command = folder.with_shell_as_diesel();
        command.args(["diesel", "-c", "echo ${DATABASE_URL-unset}"]);
        command
    };
    // There is no .env file.
    let out = run().env("DATABASE_URL", "").current_dir("/").output();
    assert_eq!(Text::of(out.unwrap()).stdout, "unset\n");
    // diesel would read this one itself, pooled as it is, if its variable were not set.
    folder.write(".env", &format!("DATABASE_URL='{POOLED}'"));
    let out = run().env("DATABASE_URL", "").output();
    assert_eq!(Text::of(out.unwrap()).stdout, "\n");
}

#[test]
fn a_missing_diesel_cli_is_named_with_its_cure() {
    let folder = Folder::new("missing_cli");
    for url in [POOLED, ""] {
        let run = folder
            .command()
            .args(["diesel", "migration", "run"])
            .env("DATABASE_URL", url)
            .env("PATH", folder.path("bin"))
            .env("RUST_BACKTRACE", "1")
            .output();
        let out = Text::of(run.unwrap());
        assert_eq!(out.code, Some(127));
        assert!(
            out.stderr
                .starts_with("diesel-neon: the diesel CLI is not on the PATH")
        );
        assert!(out.stderr.contains("cargo install diesel_cli"));
        assert_eq!(out.stderr.lines().count(), 1, "{out:?}");
    }
}

#[test]
fn a_url_among_the_arguments_is_refused() {
    let folder = Folder::new("url_argument");
    let run = |arguments: &[&str]| {
        let mut command = folder.with_shell_as_diesel();
        Text::of(command.arg("diesel").args(arguments).output().unwrap())
    };
    for arguments in [
        &["migration", "run", "--database-url", POOLED][..],
        &["--database-url=postgresql://u:s3cret@h/db", "setup"],
    ] {
        let out = run(arguments);
        assert_eq!(out.code, Some(2));
        assert!(out.stderr.contains("DATABASE_URL_UNPOOLED"), "{out:?}");
        assert!(!out.stderr.contains("s3cr"), "{out:?}");
    }
    assert_eq!(run(&["-c", "true", "--", "--database-url"]).code, Some(0));
    assert_eq!(run(&["-c", "true", "--database-urls"]).code, Some(0));
}

#[test]
fn a_connection_that_fails_shows_no_password() {
    let folder = Folder::new("no_password");
    let run = folder
        .with_diesel()
        .args(["diesel", "database", "setup"])
        .args(["--migration-dir", "."])
        .env("DATABASE_URL", "postgresql://u:s3cr%40et@127.0.0.1:1/db")
        .output();
    let out = Text::of(run.unwrap());
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(out.stderr.contains("127.0.0.1:1"), "{out:?}");
    assert!(!format!("{out:?}").contains("s3cr"), "{out:?}");
}

#[tokio::test]
async fn migrations_go_around_the_pooler_and_give_the_schema_in_src() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("migrations");
    folder.write(".env", &format!("DATABASE_URL='{}'", neon.pooled_url()));
    for file in ["diesel.toml", "src/books/schema.rs"] {
        folder.copy(&repository().join(file), file);
    }
    for migration in fs::read_dir(repository().join("migrations")).unwrap() {
        let migration = migration.unwrap();
        if !migration.path().is_dir() {
            continue;
        }
        for file in fs::read_dir(migration.path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(repository()).unwrap();
            folder.copy(&path, name.to_str().unwrap());
        }
    }
    let run = |arguments: &[&str]| {
        let mut command = folder.with_diesel();
        let out = Text::of(command.arg("diesel").args(arguments).output().unwrap());
        assert_eq!(out.code, Some(0), "{out:?}");
        out.stdout
    };

    let ran = run(&["migration", "run"]);
    assert!(ran.contains("Running migration"), "{ran}");
    let ran = run(&["migration", "redo", "--all"]);
    assert!(ran.contains("Rolling back migration"), "{ran}");
    assert_eq!(run(&["migration", "pending"]).trim(), "false");

    let schema = fs::read_to_string(repository().join("src/books/schema.rs")).unwrap();
    assert_eq!(run(&["print-schema"]), schema);
    // `run` and `redo` write it too, as diesel.toml says.
    assert_eq!(
        fs::read_to_string(folder.path("src/books/schema.rs")).unwrap(),
        schema
    );

    let counters = neon.counters();
    assert_eq!(counters.pooled.attempts, 0);
    assert!(counters.direct.connections >= 4, "{counters:?}");
}

#[tokio::test]
async fn a_migration_that_fails_fails_the_command() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("failing_migration");
    folder.write(
        "migrations/1_wrong/up.sql",
        "CREATE TABLE t (id INT); SELECT 1/0;",
    );
    folder.write("migrations/1_wrong/down.sql", "DROP TABLE t;");
    let run = |arguments: &[&str]| {
        let mut command = folder.with_diesel();
        command.env("DATABASE_URL", neon.pooled_url());
        Text::of(command.arg("diesel").args(arguments).output().unwrap())
    };

    let out = run(&["migration", "run"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(out.stderr.contains("division by zero"), "{out:?}");
    let out = run(&["migrate"]);
    assert_eq!(out.code, Some(2), "{out:?}");
    assert!(
        out.stderr.contains("unrecognized subcommand 'migrate'"),
        "{out:?}"
    );
}
