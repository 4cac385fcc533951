//! A folder for a command to run in.
#![allow(dead_code)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// A folder of its own for a test. Its `.env` and `diesel.toml` keep programs from looking for one further up,
/// where the repository's are.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Self(
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(env!("CARGO_CRATE_NAME"))
                .join(name),
        );
        folder.remove();
        folder.write(".env", "");
        folder.write("diesel.toml", "");
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn copy(&self, from: &Path, name: &str) {
        self.write(name, &fs::read_to_string(from).unwrap());
    }

    /// Returns the command in this folder, with nothing of the environment around the test.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diesel-neon"));
        command.current_dir(&self.0).env_clear().envs(
            ["HOME", "PATH", "RUSTUP_HOME", "CARGO_HOME"]
                .into_iter()
                .filter_map(|name| Some((name, env::var_os(name)?))),
        );
        command
    }

    /// Returns the command with a shell in place of `diesel`, which says what it is given.
    pub(crate) fn with_shell_as_diesel(&self) -> Command {
        let bin = self.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            symlink("/bin/sh", bin.join("diesel")).unwrap();
        }
        self.with_path(bin)
    }

    pub(crate) fn with_diesel(&self) -> Command {
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
        // After a failure the folder is there to be looked at.
        if !std::thread::panicking() {
            self.remove();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Text {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
