//! The shell that runs the servers and outlives this process just long enough to stop them.
//!
//! It waits for the end of its input. That comes when the stand-in is dropped, and just as well
//! when this process is killed, since the system then closes the other end of the pipe.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use crate::binaries::{Binaries, Identity};
use crate::error::{Attempt, Error};

const SCRIPT: &str = r#"
trap 'exit 0' HUP INT TERM
trap 'rm -rf "$3"' EXIT
read -r _ || exit 0
"$1" -D "$3/data" >"$3/postgres.log" 2>&1 &
postgres=$!
"$2" "$3/run/pgbouncer.ini" >"$3/pgbouncer.log" 2>&1 &
pgbouncer=$!
trap 'kill -TERM "$postgres"; kill -QUIT "$postgres"; kill -KILL "$pgbouncer"
    wait; rm -rf "$3"' EXIT
read -r _
exit 0
"#;

/// Stops the servers and removes their directory when it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Takes charge of `directory`.
    pub(crate) fn new(binaries: &Binaries, who: Identity, directory: &Path) -> Result<Self, Error> {
        let mut shell = who
            .command("/bin/sh")
            .args(["-c", SCRIPT, "neon-sim"])
            .args([&binaries.postgres, &binaries.pgbouncer])
            .arg(directory)
            // Ctrl-C is for this process; what it means for the servers is decided here.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .attempt(|| "cannot start /bin/sh".into())?;
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }

    /// Starts the servers, whose files are in place by now.
    pub(crate) fn start_servers(&mut self) -> Result<(), Error> {
        match &mut self.input {
            Some(input) => input.write_all(b"start\n"),
            None => Ok(()),
        }
        .attempt(|| "cannot start the servers".into())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.input.take());
        // Nothing is left to do if the shell is gone already.
        let _ = self.shell.wait();
    }
}
