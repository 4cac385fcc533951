//! An initialised cluster to copy from, since `initdb` takes most of the time of a start.
//!
//! The template is kept in the directory for temporary files, under a name that says which PostgreSQL made it and for
//! whom. It is used only if it is private to that user and complete. A rename puts it there, so that processes that
//! start at the same time never see half a template.

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::binaries::{Binaries, answer};
use super::files::temporary_directory;
use super::identity::Identity;
use super::names::{DATABASE, OWNER, SUPERUSER};
use crate::error::{Context, Error};

/// To be raised whenever the template's content changes.
const REVISION: u32 = 1;

/// Returns where a template may be made that is wanted for this directory. Whoever removes the one removes the other, too.
pub(super) fn workshop(directory: &Path, who: Identity) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    temporary_directory(who).join(format!("{name}-initdb"))
}

/// Copies the template to `data`, which must not exist; makes the template first if there is none, in `making`.
pub(super) fn copy_to(
    data: &Path,
    making: &Path,
    binaries: &Binaries,
    who: Identity,
) -> Result<(), Error> {
    let template = location(binaries, who);
    if copied(&template, data, who) {
        return Ok(());
    }
    remove(&template)?;
    remove(data)?;
    let fresh = make(making, binaries, who)?;
    // Copied before others see it: one that found none a moment ago may still remove what is there.
    if !copied(&fresh, data, who) {
        return Err(Error::Setting(format!(
            "the cluster in {} cannot be copied",
            fresh.display()
        )));
    }
    // Where another process came first, its template stays.
    let _ = fs::rename(fresh, &template);
    remove(making)
}

fn location(binaries: &Binaries, who: Identity) -> PathBuf {
    let version = answer(Command::new(&binaries.postgres).arg("-V")).unwrap_or_default();
    let key: String = format!("{version} {}", binaries.postgres.display())
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    temporary_directory(who).join(format!("neon-sim-template-{REVISION}-{}-{key}", who.uid()))
}

/// Copies a template that is complete and this user's own; returns `false` if it is not.
fn copied(template: &Path, data: &Path, who: Identity) -> bool {
    let private = fs::symlink_metadata(template).is_ok_and(|metadata| {
        metadata.is_dir() && metadata.uid() == who.uid() && metadata.mode() & 0o077 == 0
    });
    let expected = fs::read_to_string(template.join("entries"))
        .ok()
        .and_then(|entries| entries.parse::<usize>().ok());
    private
        && expected.is_some()
        && copy(&template.join("data"), data, who).is_ok_and(|entries| Some(entries) == expected)
}

/// Copies a directory and returns how many entries it has.
fn copy(from: &Path, to: &Path, who: Identity) -> Result<usize, Error> {
    let cannot = |path: &Path| format!("cannot copy {}", path.display());
    let permissions = fs::metadata(from).context(|| cannot(from))?.permissions();
    fs::create_dir(to).context(|| cannot(from))?;
    fs::set_permissions(to, permissions).context(|| cannot(from))?;
    who.own(to)?;
    let mut entries = 0;
    for entry in fs::read_dir(from).context(|| cannot(from))? {
        let entry = entry.context(|| cannot(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        entries += 1;
        if entry.file_type().context(|| cannot(&source))?.is_dir() {
            entries += copy(&source, &target, who)?;
        } else {
            fs::copy(&source, &target).context(|| cannot(&source))?;
            who.own(&target)?;
        }
    }
    Ok(entries)
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a template in a directory of its own, and returns its path.
fn make(directory: &Path, binaries: &Binaries, who: Identity) -> Result<PathBuf, Error> {
    DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .context(|| format!("cannot make {}", directory.display()))?;
    who.own(directory)?;
    let template = directory.join("template");
    let data = template.join("data");
    run(
        "initdb",
        who.command(&binaries.initdb)
            .arg("--pgdata")
            .arg(&data)
            .args([
                "--username",
                SUPERUSER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
            ])
            .args(["--no-locale", "--no-sync", "--wal-segsize", "1"]),
        "",
    )?;
    run(
        "postgres",
        who.command(&binaries.postgres)
            .args([
                "--single",
                "-c",
                "exit_on_error=on",
                "-c",
                "fsync=off",
                "-D",
            ])
            .arg(&data)
            .arg("postgres"),
        &format!(
            "CREATE ROLE {OWNER} LOGIN CREATEDB CREATEROLE\n\
             CREATE DATABASE {DATABASE} OWNER {OWNER}\n"
        ),
    )?;
    let entries = count(&data)?;
    let list = template.join("entries");
    fs::write(&list, entries.to_string()).context(|| format!("cannot write {}", list.display()))?;
    fs::set_permissions(
        &template,
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .context(|| format!("cannot protect {}", template.display()))?;
    Ok(template)
}

fn count(directory: &Path) -> Result<usize, Error> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut entries = 0;
    for entry in fs::read_dir(directory).context(cannot)? {
        let entry = entry.context(cannot)?;
        entries += 1;
        if entry.file_type().context(cannot)?.is_dir() {
            entries += count(&entry.path())?;
        }
    }
    Ok(entries)
}

fn run(program: &'static str, command: &mut Command, input: &str) -> Result<(), Error> {
    let starting = || format!("cannot start {program}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(starting)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early prints why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context(starting)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::ProgramFailed {
        program,
        detail: String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
            .trim()
            .to_owned(),
    })
}
