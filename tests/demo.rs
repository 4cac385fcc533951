//! `make demo` serves the database that it is given, and asks before it writes next to tables of others.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use common::neon;

/// `make demo` may have to build the server first.
const HANG: Duration = Duration::from_secs(240);
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const BOOKS: &str = "SELECT count(*) FROM pg_class WHERE relname IN ('books', 'book_requests')";

#[tokio::test]
async fn a_dotenv_file_leads_nowhere() {
    let real = neon().await;
    let place = Place::new("dotenv");
    let dotenv = format!(
        "DATABASE_URL='{0}'\nDATABASE_URL_UNPOOLED='{0}'\n",
        real.url()
    );
    for folder in [".", "repository"] {
        fs::write(place.0.join(folder).join(".env"), &dotenv).unwrap();
    }
    let mut demo = place.demo();
    // A variable without the one that it belongs to.
    demo.env("DATABASE_URL_UNPOOLED", real.url());
    let said = serve(demo).await;
    assert!(
        said.contains("DATABASE_URL is not set for this command, so a stand-in for Neon"),
        "{said}"
    );
    assert_eq!(real.counters().direct.attempts, 0);
}

#[tokio::test]
async fn the_database_that_is_named_for_the_command_is_served() {
    let (given, other) = (neon().await, neon().await);
    let place = Place::new("given");
    let dotenv = format!("DATABASE_URL_UNPOOLED='{}'\n", other.url());
    fs::write(place.0.join(".env"), dotenv).unwrap();
    // The second time its own tables exist.
    for _ in 0..2 {
        let mut demo = place.demo();
        demo.env("DATABASE_URL", given.pooled_url());
        let said = serve(demo).await;
        assert!(said.contains("DATABASE_URL is set, so the books go to postgresql://"));
        assert!(!said.contains(given.password()), "{said}");
        let books = given.sql("SELECT count(*) FROM books").await.unwrap();
        assert_eq!(books[0][0].as_deref(), Some("5"));
    }
    assert_eq!(other.counters().direct.attempts, 0);
}

#[tokio::test]
async fn a_database_with_tables_of_others_is_refused_where_nobody_can_be_asked() {
    let neon = neon().await;
    let place = Place::new("refused");
    for table in ["public.invoices", "\"the shop\".orders"] {
        neon.sql(&format!(
            "CREATE SCHEMA IF NOT EXISTS \"the shop\"; CREATE TABLE {table} (id INT)"
        ))
        .await
        .unwrap();
        let mut demo = place.demo();
        demo.env("DATABASE_URL", neon.url());
        let output = end(demo).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(table), "{said}");
        assert!(said.contains("without DATABASE_URL"), "{said}");
        assert!(!said.contains(neon.password()), "{said}");
        assert_eq!(neon.sql(BOOKS).await.unwrap()[0][0].as_deref(), Some("0"));
        neon.sql(&format!("DROP TABLE {table}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_port_that_is_none_is_not_called_taken() {
    let place = Place::new("port");
    for port in ["http", "99999", "30 00", "-1"] {
        let mut demo = place.demo();
        demo.env("PORT", port);
        let output = end(demo).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said, format!("demo: PORT={port} is no port number\n"));
    }
}

/// On other systems `script` takes other arguments.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_terminal_it_asks() {
    let neon = neon().await;
    neon.sql("CREATE TABLE invoices (id INT)").await.unwrap();
    let place = Place::new("asks");
    for (answer, books) in [("\n", "0"), ("n\n", "0"), ("y\n", "2")] {
        let mut demo = place.command("script");
        demo.args(["-qec", "scripts/demo", "/dev/null"]);
        demo.env("DATABASE_URL", neon.url()).stdin(Stdio::piped());
        let mut demo = demo.spawn().unwrap();
        let mut keyboard = demo.stdin.take().unwrap();
        let mut screen = BufReader::new(demo.stdout.take().unwrap());
        let mut said = String::new();
        let talk = async {
            while !said.contains("[y/N]") {
                let byte = screen.read_u8().await.unwrap_or_else(|_| panic!("{said}"));
                said.push(byte.into());
            }
            keyboard.write_all(answer.as_bytes()).await.unwrap();
            let mut lines = screen.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                said += &line;
                if line.starts_with("Serving") {
                    terminate(&demo).await;
                }
            }
        };
        timeout(HANG, talk).await.expect("no hang");
        assert!(said.contains("public.invoices"), "{said}");
        assert_eq!(said.contains("nothing was written"), books == "0", "{said}");
        timeout(HANG, demo.wait()).await.expect("no hang").unwrap();
        let there = neon.sql(BOOKS).await.unwrap();
        assert_eq!(there[0][0].as_deref(), Some(books), "{said}");
    }
}

/// Runs the demo until it serves, ends it, and returns its output.
async fn serve(mut demo: Command) -> String {
    let mut demo = demo.spawn().unwrap();
    let mut stderr = demo.stderr.take().unwrap();
    let mut stdout = BufReader::new(demo.stdout.take().unwrap()).lines();
    let run = async {
        let mut said = String::new();
        while let Some(line) = stdout.next_line().await.unwrap() {
            said = said + &line + "\n";
            if line.starts_with("Serving") {
                terminate(&demo).await;
            }
        }
        let served = said.contains("Serving");
        stderr.read_to_string(&mut said).await.unwrap();
        assert!(served, "{said}");
        demo.wait().await.unwrap();
        said
    };
    timeout(HANG, run).await.expect("no hang")
}

async fn end(mut demo: Command) -> Output {
    let output = timeout(HANG, demo.output()).await;
    output.expect("no hang").unwrap()
}

async fn terminate(demo: &Child) {
    let pid = demo.id().unwrap().to_string();
    let kill = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(kill.await.unwrap().success());
}

/// A copy of the repository, so that files can be put above it; its `cargo` builds in the real one.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("diesel-neon-demo-{name}-{}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        let repository = place.0.join("repository");
        for folder in ["repository/scripts", "bin", "tmp"] {
            fs::create_dir_all(place.0.join(folder)).unwrap();
        }
        let real = Path::new(REPOSITORY);
        fs::copy(real.join("scripts/demo"), repository.join("scripts/demo")).unwrap();
        for name in ["migrations", "diesel.toml"] {
            symlink(real.join(name), repository.join(name)).unwrap();
        }
        let cargo = place.0.join("bin/cargo");
        let script = format!(
            "#!/bin/sh\ncd '{REPOSITORY}' && exec '{}' \"$@\"\n",
            env!("CARGO")
        );
        fs::write(&cargo, script).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn demo(&self) -> Command {
        self.command("scripts/demo")
    }

    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let bin = self.0.join("bin");
        let mut command = Command::new(program);
        command
            .current_dir(self.0.join("repository"))
            .env(
                "PATH",
                format!("{}:{REPOSITORY}/target/tools/bin:{path}", bin.display()),
            )
            .env("TMPDIR", self.0.join("tmp"))
            .env("PORT", "0")
            .env_remove("DATABASE_URL")
            .env_remove("POSTGRES_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Build scripts look at what Cargo tells a test of its package, and would build anew what stands on them.
        let own =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars().filter(|(name, _)| own(name)) {
            command.env_remove(name);
        }
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
