//! Finds the machine's own PostgreSQL and PgBouncer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pooler::Pooler;
use crate::error::Error;

/// The programs that the stand-in runs.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    /// Nothing if PostgreSQL serves the pooled endpoint, too.
    pub(crate) pgbouncer: Option<PathBuf>,
}

impl Binaries {
    /// Finds the machine's own programs; a PgBouncer that is given takes the place of its own.
    pub(crate) fn find(pooler: Pooler, pgbouncer: Option<&Path>) -> Result<Self, Error> {
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
        Ok(Self {
            initdb: postgres.with_file_name("initdb"),
            postgres,
            pgbouncer: found(pooler, &poolers)?,
        })
    }
}

/// Returns the first of these programs that is there, if the pooled endpoint needs one.
fn found(pooler: Pooler, poolers: &[PathBuf]) -> Result<Option<PathBuf>, Error> {
    let first = || poolers.iter().find(|program| program.is_file()).cloned();
    match pooler {
        Pooler::Direct => Ok(None),
        Pooler::PgBouncerIfFound => Ok(first()),
        Pooler::PgBouncer => match first() {
            Some(program) => Ok(Some(program)),
            None => Err(Error::MissingProgram {
                program: "pgbouncer",
                searched: listed(poolers),
                install: "`apt-get install pgbouncer` or `brew install pgbouncer`",
            }),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbouncer_is_missed_only_where_it_is_needed() {
        let there = [std::env::current_exe().unwrap()];
        let missing = [PathBuf::from("/nowhere/pgbouncer")];
        let program = |pooler, programs| found(pooler, programs).unwrap();
        for pooler in [Pooler::PgBouncer, Pooler::PgBouncerIfFound] {
            assert_eq!(program(pooler, &there).as_ref(), there.first());
        }
        assert_eq!(program(Pooler::PgBouncerIfFound, &missing), None);
        assert_eq!(program(Pooler::Direct, &there), None);
        let error = found(Pooler::PgBouncer, &missing).unwrap_err();
        assert!(error.to_string().contains("/nowhere/pgbouncer"), "{error}");
    }
}
