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
    // What comes before it has been committed.
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

    // As the error advises.
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

    // Both of the file.
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
