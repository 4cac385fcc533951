//! Finds the machine's own PostgreSQL and PgBouncer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// The programs that the stand-in runs.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) pgbouncer: PathBuf,
}

impl Binaries {
    /// Finds the machine's own programs; a PgBouncer that is given takes the place of its own.
    pub(crate) fn find(pgbouncer: Option<&Path>) -> Result<Self, Error> {
        // `initdb` must be the one that belongs to `postgres`.
        let servers = postgres_directories();
        let postgres = servers
            .iter()
            .map(|directory| directory.join("postgres"))
            .find(|postgres| postgres.is_file() && postgres.with_file_name("initdb").is_file())
            .ok_or_else(|| Error::MissingProgram {
                program: "postgres",
                searched: listed(&servers),
                install: "`apt-get install postgresql` or `brew install postgresql`",
            })?;
        let poolers = match pgbouncer {
            Some(path) => vec![path.to_owned()],
            None => pgbouncer_directories()
                .into_iter()
                .map(|directory| directory.join("pgbouncer"))
                .collect(),
        };
        let pgbouncer = poolers
            .iter()
            .find(|pgbouncer| pgbouncer.is_file())
            .cloned()
            .ok_or_else(|| Error::MissingProgram {
                program: "pgbouncer",
                searched: listed(&poolers),
                install: "`apt-get install pgbouncer` or `brew install pgbouncer`",
            })?;
        Ok(Self {
            initdb: postgres.with_file_name("initdb"),
            postgres,
            pgbouncer,
        })
    }
}

fn postgres_directories() -> Vec<PathBuf> {
    let mut directories = path();
    if let Some(bindir) = answer(Command::new("pg_config").arg("--bindir")) {
        directories.push(bindir.into());
    }
    directories.extend(newest_first("/usr/lib/postgresql", "", "bin"));
    for prefix in ["/opt/homebrew", "/usr/local"] {
        directories.extend(newest_first(&format!("{prefix}/opt"), "postgresql@", "bin"));
        directories.push(format!("{prefix}/bin").into());
    }
    directories.push("/usr/local/pgsql/bin".into());
    directories
}

fn pgbouncer_directories() -> Vec<PathBuf> {
    let mut directories = path();
    directories.extend(
        [
            "/usr/sbin",
            "/usr/local/sbin",
            "/usr/local/bin",
            "/opt/homebrew/bin",
            "/opt/homebrew/opt/pgbouncer/bin",
            "/usr/local/opt/pgbouncer/bin",
        ]
        .map(PathBuf::from),
    );
    directories
}

fn path() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// Returns each `parent/<prefix><version>/<below>`, the highest version first.
fn newest_first(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse();
            Some((version.ok()?, entry.path().join(below)))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path).collect()
}

fn listed(directories: &[PathBuf]) -> String {
    let names: Vec<_> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    names.join(", ")
}

/// Returns what a program prints, if it is there and succeeds.
pub(super) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
