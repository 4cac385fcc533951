//! The command `diesel-neon`, with a stand-in for the `diesel` CLI and with the real one.

#![cfg(unix)]

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use neon_sim::NeonSim;

const POOLED: &str = "postgresql://u:s3cr%40et@ep-a-1-pooler.x.aws.neon.tech/db?pgbouncer=true";

#[test]
fn diesel_gets_the_direct_url_in_its_environment_only() {
    let folder = Folder::new("environment");
    let run = folder
        .with_shell_as_diesel()
        .args(["diesel", "-c"])
        .arg(r#"echo "$DATABASE_URL $PGPASSWORD"; cat /proc/$$/cmdline || ps -wwo args= -p $$"#)
        .env("DATABASE_URL", POOLED)
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
    // Where there is no .env file.
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

#[test]
fn the_url_is_printed_with_its_reason_beside_it() {
    let folder = Folder::new("url");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = folder.command();
        command.arg("url").args(arguments);
        Text::of(command.envs(variables.iter().copied()).output().unwrap())
    };
    let parsed = |out: &Text| {
        assert_eq!(out.code, Some(0), "{out:?}");
        assert_eq!(out.stdout.lines().count(), 1, "{out:?}");
        diesel_neon::DatabaseUrl::parse(&out.stdout).unwrap()
    };
    let app = ("DATABASE_URL", POOLED);

    let out = run(&[], &[app]);
    assert!(
        out.stdout
            .starts_with("postgresql://u:***@ep-a-1-pooler.x.aws.neon.tech")
    );
    assert_eq!(
        out.stderr,
        "diesel-neon: the pooled endpoint, from DATABASE_URL\n\
         diesel-neon: ignored in it, for other tools only: pgbouncer\n"
    );

    let out = run(&["--direct", "--show-password"], &[app]);
    assert!(
        out.stdout
            .starts_with("postgresql://u:s3cr%40et@ep-a-1.x.aws.neon.tech")
    );
    assert_eq!(
        out.stderr.lines().next().unwrap(),
        "diesel-neon: the direct endpoint, from DATABASE_URL without its -pooler"
    );
    assert!(!out.stderr.contains("s3cr"));
    let shown = parsed(&out);
    let direct = ("DATABASE_URL_UNPOOLED", out.stdout.trim());
    assert_eq!(
        parsed(&run(&["--direct", "--show-password"], &[direct])),
        shown
    );

    let out = run(&["--pooled"], &[("DATABASE_URL", direct.1)]);
    assert!(out.stdout.contains("@ep-a-1-pooler.x.aws.neon.tech"));
    assert_eq!(
        out.stderr,
        "diesel-neon: the pooled endpoint, from DATABASE_URL with -pooler\n"
    );

    folder.write(".env", &format!("DATABASE_URL='{POOLED}'"));
    let out = run(&[], &[]);
    assert!(out.stdout.contains("@ep-a-1-pooler.x.aws.neon.tech"));
    let file = fs::canonicalize(folder.path(".env")).unwrap();
    assert_eq!(
        out.stderr.lines().next().unwrap(),
        format!(
            "diesel-neon: the pooled endpoint, from DATABASE_URL, set in {}",
            file.display()
        )
    );
}

#[test]
fn wrong_environments_are_told_in_one_line_without_secrets() {
    let folder = Folder::new("wrong_environment");
    let wrong = [
        ("", "no database URL in the environment: looked at "),
        (
            "s3cret",
            "DATABASE_URL: the database URL does not start with ",
        ),
        (
            "postgres://u:s3cr/et@h/db",
            "DATABASE_URL: the database URL cannot be taken apart",
        ),
        (
            "postgres://u:s3cret@h/db?sslmod=x",
            "DATABASE_URL: unknown parameter `sslmod`",
        ),
        (
            "postgres://u:s3cret@h.example/db?sslmode=disable",
            "DATABASE_URL: sslmode=disable ",
        ),
    ];
    for (url, message) in wrong {
        for arguments in [
            &["url"][..],
            &["url", "--direct"],
            &["diesel", "-c", "exit 1"],
        ] {
            let mut command = folder.with_shell_as_diesel();
            let run = command.args(arguments).env("DATABASE_URL", url).output();
            let out = Text::of(run.unwrap());
            assert_eq!(out.code, Some(1), "{out:?}");
            assert_eq!(out.stdout, "");
            assert_eq!(out.stderr.lines().count(), 1, "{out:?}");
            let said = out.stderr.strip_prefix("diesel-neon: ").unwrap();
            let said = said.strip_prefix("note: ").unwrap_or(said);
            assert!(said.starts_with(message), "{out:?}");
            assert!(!out.stderr.contains("s3cr"), "{out:?}");
        }
    }

    folder.write(
        ".env",
        "DATABASE_URL=postgresql://u:s3cret@h/db with a space",
    );
    let out = Text::of(folder.command().arg("url").output().unwrap());
    assert_eq!(out.code, Some(1));
    assert!(
        out.stderr.starts_with("diesel-neon: the .env file: "),
        "{out:?}"
    );
    assert!(!out.stderr.contains("s3cr"), "{out:?}");
}

#[test]
fn wrong_usage_is_exit_status_2() {
    let folder = Folder::new("usage");
    for arguments in [
        &[][..],
        &["migrate"],
        &["migrate", "up"],
        &["migrate", "revert", "--all", "--number=2"],
        &["doctor", "--instances=0"],
        &["doctor", "--suspend-after=1d"],
        &["completions", "cmd"],
        &["url", "--pooled", "--direct"],
    ] {
        let out = Text::of(folder.command().args(arguments).output().unwrap());
        assert_eq!((out.code, &*out.stdout), (Some(2), ""));
        assert!(!out.stderr.contains('\x1b'), "{out:?}");
        assert!(
            ["Usage: diesel-neon", "--help"]
                .iter()
                .any(|text| out.stderr.contains(text)),
            "{out:?}"
        );
    }
}

#[test]
fn help_version_and_completions_are_there() {
    let folder = Folder::new("help");
    let run = |arguments: &[&str]| {
        let out = Text::of(folder.command().args(arguments).output().unwrap());
        assert_eq!((out.code, &*out.stderr), (Some(0), ""), "{out:?}");
        assert!(!out.stdout.contains('\x1b'), "{out:?}");
        out.stdout
    };
    assert_eq!(
        run(&["--version"]),
        format!("diesel-neon {}\n", env!("CARGO_PKG_VERSION"))
    );
    for task in ["diesel", "doctor", "migrate", "url", "completions"] {
        assert!(run(&["--help"]).contains(&format!("  {task} ")));
    }
    let help = run(&["doctor", "--help"]);
    for text in [
        "DATABASE_URL_UNPOOLED",
        "Exit status",
        "elapsed_ms",
        "--suspend-after",
    ] {
        assert!(help.contains(text), "{help}");
    }
    assert!(run(&["migrate", "--help"]).contains("Exit status"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell]).contains("doctor"));
    }
}

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

/// A folder of its own for a test; its `.env` and `diesel.toml` keep everybody from looking for one further up,
/// which is where the repository's are.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Self(
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join("cli")
                .join(name),
        );
        folder.remove();
        folder.write(".env", "");
        folder.write("diesel.toml", "");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn copy(&self, from: &Path, name: &str) {
        self.write(name, &fs::read_to_string(from).unwrap());
    }

    /// The command in this folder, with nothing of the environment around the test.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diesel-neon"));
        command.current_dir(&self.0).env_clear().envs(
            ["HOME", "PATH", "RUSTUP_HOME", "CARGO_HOME"]
                .into_iter()
                .filter_map(|name| Some((name, env::var_os(name)?))),
        );
        command
    }

    /// A shell says what `diesel` is given.
    fn with_shell_as_diesel(&self) -> Command {
        let bin = self.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            symlink("/bin/sh", bin.join("diesel")).unwrap();
        }
        self.with_path(bin)
    }

    fn with_diesel(&self) -> Command {
        let ours = repository().join("target/tools/bin");
        let path = env::var_os("PATH").unwrap_or_default();
        let found = [ours]
            .into_iter()
            .chain(env::split_paths(&path))
            .find(|directory| directory.join("diesel").is_file());
        self.with_path(found.expect("the diesel CLI is missing: run `make setup`"))
    }

    fn with_path(&self, first: PathBuf) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = [first].into_iter().chain(env::split_paths(&path));
        let mut command = self.command();
        command.env("PATH", env::join_paths(path).unwrap());
        command
    }

    fn remove(&self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is there to be looked at when the test has failed.
        if !std::thread::panicking() {
            self.remove();
        }
    }
}

#[derive(Debug)]
struct Text {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Text {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
