//! The user who runs the servers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::binaries::answer;
use crate::error::{Context, Error};

/// The user who runs the servers: this process's, or an unprivileged one if that is root, whom PostgreSQL and
/// PgBouncer both refuse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    is_other: bool,
}

impl Identity {
    /// Returns the identity for a process that has made the file `ours`.
    pub(super) fn of_owner(ours: &fs::Metadata) -> Result<Self, Error> {
        let (uid, gid) = (ours.uid(), ours.gid());
        if uid != 0 {
            return Ok(Self {
                uid,
                gid,
                is_other: false,
            });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|user| {
                let id = |what| answer(Command::new("id").args([what, user]))?.parse().ok();
                Some(Self {
                    uid: id("-u")?,
                    gid: id("-g")?,
                    is_other: true,
                })
            })
            .ok_or_else(|| {
                Error::Setting(
                    "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`"
                        .into(),
                )
            })
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns whether this is another user than this process's.
    pub(super) fn is_other(&self) -> bool {
        self.is_other
    }

    /// Returns a command that runs as this user.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or directory to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.is_other {
            chown(path, Some(self.uid), Some(self.gid))
                .context(|| format!("cannot change the owner of {}", path.display()))?;
        }
        Ok(())
    }
}
