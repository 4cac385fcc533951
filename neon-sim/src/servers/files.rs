//! Files and directories that the servers' user can use.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::identity::Identity;
use crate::error::{Context, Error};

/// Returns where the servers' files go: a directory that an unprivileged user can reach.
pub(super) fn temporary_directory(who: Identity) -> PathBuf {
    if who.is_other() {
        PathBuf::from("/tmp")
    } else {
        let directory = std::env::temp_dir();
        // The servers work in another directory than this process.
        std::path::absolute(&directory).unwrap_or(directory)
    }
}

/// Makes a directory that only this user can enter, removed unless it is kept. It is in memory if there is room and `TMPDIR`
/// does not say otherwise: a cluster is a thousand small files, and on a disk a test may take longer to make and remove them
/// than for all else.
pub(super) fn quick_directory(prefix: &str, who: Identity) -> Result<TempDir, Error> {
    let has_room = || {
        let memory = rustix::fs::statvfs(MEMORY).ok();
        memory.is_some_and(|memory| memory.f_bavail.saturating_mul(memory.f_frsize) >= ROOM)
    };
    let is_free = std::env::var_os("TMPDIR").is_none();
    let in_memory =
        (is_free && has_room()).then(|| private_directory_in(Path::new(MEMORY), prefix));
    match in_memory {
        Some(Ok(directory)) => Ok(directory),
        _ => {
            let parent = temporary_directory(who);
            private_directory_in(&parent, prefix)
                .context(|| format!("cannot make a directory in {}", parent.display()))
        }
    }
}

fn private_directory_in(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

/// Where Linux has files in memory.
const MEMORY: &str = "/dev/shm";

/// A cluster takes 40 MB, and a suite starts several at a time. A container has 64 MB, as a rule.
const ROOM: u64 = 1 << 30;

/// Writes a file for the servers' user.
pub(super) fn write(path: &Path, text: &str, who: Identity) -> Result<(), Error> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    who.own(path)
}
