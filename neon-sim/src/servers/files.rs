//! Files and directories that the servers' user can use.

use std::fs::{self, Permissions};
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
        std::env::temp_dir()
    }
}

/// Makes a directory that only this user can enter, removed unless it is kept.
pub(super) fn private_directory(prefix: &str, who: Identity) -> Result<TempDir, Error> {
    let parent = temporary_directory(who);
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .context(|| format!("cannot make a directory in {}", parent.display()))
}

/// Writes a file for the servers' user.
pub(super) fn write(path: &Path, text: &str, who: Identity) -> Result<(), Error> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    who.own(path)
}
