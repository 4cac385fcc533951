//! `diesel-neon migrate`.

use neon_sim::NeonSim;

use crate::folder::{Folder, Text};

#[tokio::test]
async fn migrations_run_without_the_diesel_cli() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("migrate");
    folder.write("steps/1_shelves/up.sql", "CREATE TABLE shelves (id INT);");
    folder.write("steps/1_shelves/down.sql", "DROP TABLE shelves;");
    folder.write("steps/2_pages/up.sql", "CREATE TABLE pages (id INT);");
    folder.write("steps/2_pages/down.sql", "DROP TABLE pages;");
    let run = |arguments: &[&str], code: i32| {
        let mut command = folder.command();
        command.env("DATABASE_URL", neon.pooled_url());
        command.arg("migrate").args(arguments);
        let run = command.args(["--migration-dir", "steps"]).output();
        let out = Text::of(run.unwrap());
        assert_eq!(out.code, Some(code), "{out:?}");
        assert!(!format!("{out:?}").contains(neon.password()), "{out:?}");
        out
    };

    assert_eq!(run(&["pending"], 3).stdout, "1_shelves\n2_pages\n");
    let dry = run(&["dry-run"], 0).stdout;
    assert!(
        dry.contains("-- 2_pages\nCREATE TABLE pages (id INT);\n"),
        "{dry}"
    );
    let ran = run(&["run"], 0).stdout;
    assert!(ran.starts_with("applied 1_shelves in "), "{ran}");
    assert!(ran.contains("\napplied 2_pages in "), "{ran}");
    assert_eq!(run(&["run"], 0).stdout, "nothing to do\n");
    assert_eq!(run(&["pending"], 0).stdout, "");
    assert!(
        run(&["revert"], 0)
            .stdout
            .starts_with("reverted 2_pages in ")
    );
    let listed = run(&["list"], 0).stdout;
    assert!(listed.starts_with("[X] 1_shelves"), "{listed}");
    assert!(listed.ends_with("[ ] 2_pages\n"), "{listed}");
    assert_eq!(run(&["redo", "--all"], 0).stdout.lines().count(), 2);

    folder.write("steps/3_wrong/up.sql", "SELECT 1/0;");
    let out = run(&["run"], 1);
    assert!(out.stderr.contains("3_wrong"), "{out:?}");
    assert!(out.stderr.contains("division by zero"), "{out:?}");
    // The migration before it has been committed.
    assert!(out.stdout.starts_with("applied 2_pages"), "{out:?}");
    assert_eq!(neon.counters().pooled.attempts, 0);
}

#[tokio::test]
async fn a_direct_url_left_in_a_file_never_takes_the_migrations_elsewhere() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    neon.create_database("staging").await.unwrap();
    let staging = |url: String| url.replace("/neondb?", "/staging?");
    let folder = Folder::new("elsewhere");
    folder.write("steps/1_shelves/up.sql", "CREATE TABLE shelves (id INT);");
    folder.write(
        ".env",
        &format!(
            "DATABASE_URL='{}'\nDATABASE_URL_UNPOOLED='{}'",
            staging(neon.pooled_url()),
            staging(neon.url())
        ),
    );
    let run = |variables: &[(&str, &str)], task: &str| {
        let mut command = folder.command();
        command.args(["migrate", task, "--migration-dir", "steps"]);
        let out = Text::of(command.envs(variables.iter().copied()).output().unwrap());
        assert!(!format!("{out:?}").contains(neon.password()), "{out:?}");
        out
    };
    let overridden = neon.pooled_url();

    let out = run(&[("DATABASE_URL", &overridden)], "run");
    assert_eq!(out.code, Some(1), "{out:?}");
    for named in [
        "DATABASE_URL, set in the environment, leads to neondb on ",
        "DATABASE_URL_UNPOOLED, set in /",
        "/.env, to staging on ",
    ] {
        assert!(out.stderr.contains(named), "{out:?}");
    }
    let before = neon.counters();
    assert_eq!(before.direct.attempts, 0, "{before:?}");

    // The error advises this.
    let variables = [
        ("DATABASE_URL", &*overridden),
        ("DATABASE_URL_UNPOOLED", ""),
    ];
    let out = run(&variables, "run");
    assert_eq!(out.code, Some(0), "{out:?}");
    let first = out.stderr.lines().next().unwrap();
    assert!(
        first.starts_with("diesel-neon: database neondb on ep-quiet-lake-123456."),
        "{first}"
    );
    assert!(
        first.ends_with(
            " as neondb_owner; from DATABASE_URL without its -pooler, set in the environment"
        ),
        "{first}"
    );
    assert_eq!(run(&variables, "pending").stdout, "");

    // Both URLs come from the file.
    let out = run(&[], "pending");
    assert_eq!(out.stdout, "1_shelves\n", "{out:?}");
    let first = out.stderr.lines().next().unwrap();
    assert!(
        first.starts_with("diesel-neon: database staging on ep-quiet-lake-123456."),
        "{first}"
    );
    assert!(
        first.contains("; from DATABASE_URL_UNPOOLED, set in /"),
        "{first}"
    );
    assert!(first.ends_with("/.env"), "{first}");
}

#[tokio::test]
async fn migrations_that_would_do_something_else_than_they_seem_to_are_refused() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    for (at, (file, text, said)) in [
        (
            "up.sql",
            "-- Your SQL goes here\n",
            "its up.sql has no statement in it",
        ),
        (
            "up.sql",
            "CREATE TABLE a (); ROLLBACK;",
            "with ROLLBACK in line 1",
        ),
        (
            "up.sql",
            "\u{feff}CREATE TABLE a ();",
            "begins with a byte order mark",
        ),
        ("up.sql", "CREATE TABLE a ();\0", "a zero byte in line 1"),
        (
            "metadata.toml",
            "run_in_transaction = flase",
            "metadata.toml: line 1: ",
        ),
        (
            "metadata.toml",
            "",
            "metadata.toml: it lacks run_in_transaction",
        ),
        (
            "metadata.toml",
            "run_in_transactoin = false",
            "metadata.toml: unknown key",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = Folder::new(&format!("refused_{at}"));
        folder.write("migrations/1_a/up.sql", "CREATE TABLE a ();");
        folder.write(&format!("migrations/1_a/{file}"), text);
        let mut command = folder.command();
        command.env("DATABASE_URL", neon.url());
        let out = Text::of(command.args(["migrate", "run"]).output().unwrap());
        assert_eq!((out.code, &*out.stdout), (Some(1), ""), "{out:?}");
        assert!(out.stderr.contains(said), "{out:?}");
        let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'a'";
        assert_eq!(neon.sql(tables).await.unwrap()[0][0].as_deref(), Some("0"));
    }
}

#[tokio::test]
async fn a_migration_that_was_edited_is_marked() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("edited");
    folder.write("migrations/1_a/up.sql", "CREATE TABLE a ();");
    let run = |task: &str| {
        let mut command = folder.command();
        command.env("DATABASE_URL", neon.url());
        let out = Text::of(command.args(["migrate", task]).output().unwrap());
        assert_eq!(out.code, Some(0), "{out:?}");
        out
    };
    run("run");
    assert!(run("list").stdout.starts_with("[X] 1_a  2"));
    folder.write("migrations/1_a/up.sql", "CREATE TABLE a (id INT);");
    let listed = run("list").stdout;
    assert!(listed.starts_with("[!] 1_a  2"), "{listed}");
    assert!(listed.ends_with(", edited since then\n"), "{listed}");
    let out = run("run");
    assert_eq!(out.stdout, "nothing to do\n");
    assert!(
        out.stderr.contains("1_a was edited after it was applied"),
        "{out:?}"
    );
}

#[tokio::test]
async fn what_the_server_says_is_printed_once() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("once");
    folder.write("migrations/1_a/up.sql", "SELECT 1/0;");
    let run = || {
        let mut command = folder.command();
        command.env("DATABASE_URL", neon.url());
        let out = Text::of(command.args(["migrate", "run"]).output().unwrap());
        assert_eq!(out.code, Some(1), "{out:?}");
        out.stderr
    };
    let said = run();
    assert_eq!(said.matches("division by zero").count(), 1, "{said}");
    neon.sql("ALTER TABLE __diesel_schema_migrations OWNER TO CURRENT_USER")
        .await
        .unwrap();
    let said = run();
    assert_eq!(said.matches("permission denied").count(), 1, "{said}");

    // A failed connect is told once too.
    let wrong = neon.url().replacen(neon.password(), "wrong", 1);
    for (url, words) in [
        (&*wrong, "password authentication failed"),
        ("postgresql://u@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://u@nowhere.invalid/db", "failed to lookup"),
    ] {
        let mut command = folder.command();
        command.env("DATABASE_URL", url);
        let out = Text::of(command.args(["migrate", "list"]).output().unwrap());
        assert_eq!(out.stderr.matches(words).count(), 1, "{out:?}");
    }
}
