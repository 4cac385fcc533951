//! The shell that runs the servers and outlives this process just long enough to stop them.
//!
//! The shell waits for the end of its input, which comes when the stand-in is dropped, and also when this process is
//! killed, since the system then closes the other end of the pipe.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Mutex;

use super::binaries::Binaries;
use super::identity::Identity;
use super::server::Server;
use crate::error::{Context, Error};
use crate::sync::locked;

const SCRIPT: &str = r#"
# For `rm`, whatever this process may find.
PATH=$PATH:/usr/bin:/bin
trap 'exit 0' HUP INT TERM
trap 'kill -TERM "$postgres"; kill -QUIT "$postgres"; kill -KILL "$pgbouncer"
    wait; rm -rf "$3"
    # While `initdb` still writes there, it takes more than one try.
    for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$4" && break; sleep 0.1; done' EXIT
while read -r order; do
    case $order in
    'start postgres')
        "$1" -D "$3/data" >"$3/postgres.log" 2>&1 &
        postgres=$! ;;
    'start pgbouncer')
        "$2" "$3/run/pgbouncer.ini" >"$3/pgbouncer.log" 2>&1 &
        pgbouncer=$! ;;
    # Its fast shutdown.
    'stop postgres') kill -INT "$postgres"; wait "$postgres"; postgres= ;;
    'stop pgbouncer') kill -KILL "$pgbouncer"; wait "$pgbouncer"; pgbouncer= ;;
    esac
done
exit 0
"#;

/// Stops the servers and removes their directory when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    input: Mutex<Option<ChildStdin>>,
    directory: PathBuf,
}

impl Guard {
    /// Starts the shell, which removes `directory` in the end, and `making` if it is there.
    pub(super) fn new(
        binaries: &Binaries,
        who: Identity,
        directory: &Path,
        making: &Path,
    ) -> Result<Self, Error> {
        let mut shell = who
            .command("/bin/sh")
            .args(["-c", SCRIPT, "neon-sim"])
            .arg(&binaries.postgres)
            .arg(binaries.pgbouncer.as_deref().unwrap_or(Path::new("")))
            .args([directory, making])
            // Ctrl-C is for this process, which decides what it means for the servers.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(|| "cannot start /bin/sh".into())?;
        let input = Mutex::new(shell.stdin.take());
        Ok(Self {
            shell,
            input,
            directory: directory.to_owned(),
        })
    }

    /// Starts a server; its files must be in place.
    pub(super) fn start(&self, server: Server) -> Result<(), Error> {
        self.order("start", server)
    }

    /// Stops a server without waiting for its clients; the shell carries out a later order only afterwards.
    pub(super) fn stop(&self, server: Server) -> Result<(), Error> {
        self.order("stop", server)
    }

    fn order(&self, verb: &str, server: Server) -> Result<(), Error> {
        let order = format!("{verb} {}\n", server.program());
        match &mut *locked(&self.input) {
            Some(input) => input.write_all(order.as_bytes()),
            None => Ok(()),
        }
        .context(|| format!("cannot {verb} {}", server.program()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(locked(&self.input).take());
        // An error says that the shell is gone already.
        let _ = self.shell.wait();
        // The shell leaves what belongs to root, if root runs the tests; mostly there is nothing left.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
