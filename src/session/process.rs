//! [`ServerProcess`]: which process of the server runs the statements of a session.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::time::Instant;

use crate::protocol::{Fields, Malformed, ServerError};

/// A process of the server, as it has named itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcess {
    pub(crate) pid: i32,
    /// When it began, in microseconds of the server's clock: another one may have its number later.
    pub(crate) began: i64,
    /// When its server began, in the same way.
    pub(crate) server_began: i64,
    /// What the server's clock showed, in microseconds, when the process named itself.
    pub(crate) clock: i64,
    /// When that was read.
    pub(crate) read_at: Instant,
}

/// What a session knows of its process. A proxy makes up the number that it reports at login, so the process is asked,
/// once, in front of the first request.
#[derive(Debug, Default)]
pub(super) struct Identity {
    step: AtomicU8,
    /// Whether the session stays with the process that answers.
    is_direct: AtomicBool,
    process: OnceLock<ServerProcess>,
}

const WANTED: u8 = 1;
const ASKED: u8 = 2;
const INTERRUPTED: u8 = 3;

impl Identity {
    /// Has the process asked with the next request.
    pub(super) fn want(&self, is_direct: bool) {
        self.is_direct.store(is_direct, Ordering::Relaxed);
        let order = Ordering::Relaxed;
        let _ = self.step.compare_exchange(0, WANTED, order, order);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.step.load(Ordering::Relaxed) == WANTED
    }

    pub(super) fn set_asked(&self) {
        self.step.store(ASKED, Ordering::Relaxed);
    }

    pub(super) fn process(&self) -> Option<ServerProcess> {
        self.process.get().copied()
    }

    /// Reads the row that answers [`QUESTION`], of a session that was `told` a process ID at its login.
    pub(super) fn read(&self, row: &[u8], told: i32) {
        let known = parse(row).ok();
        let is_direct = self.is_direct.load(Ordering::Relaxed);
        if let Some(process) = known.filter(|process| is_direct || process.pid == told) {
            let _ = self.process.set(process);
        }
    }

    /// Notes that [`QUESTION`] has failed: the process stays unknown.
    pub(super) fn fail(&self, error: &[u8]) {
        let error = ServerError::parse(error);
        tracing::debug!(error = error.message, "a process is not known");
        if error.is_cancelled_by_request() {
            self.step.store(INTERRUPTED, Ordering::Relaxed);
        }
    }

    /// Returns, once, whether a cancel request has stopped the question in the place of a statement.
    pub(super) fn take_interrupted(&self) -> bool {
        self.step.load(Ordering::Relaxed) == INTERRUPTED
            && self.step.swap(ASKED, Ordering::Relaxed) == INTERRUPTED
    }
}

fn parse(row: &[u8]) -> Result<ServerProcess, Malformed> {
    let mut fields = Fields(row);
    fields.u16()?;
    let mut number = || {
        let len = usize::try_from(fields.i32()?).map_err(|_| Malformed)?;
        let text = std::str::from_utf8(fields.bytes(len)?).map_err(|_| Malformed)?;
        text.parse::<i64>().map_err(|_| Malformed)
    };
    Ok(ServerProcess {
        pid: i32::try_from(number()?).map_err(|_| Malformed)?,
        began: number()?,
        server_began: number()?,
        clock: number()?,
        read_at: Instant::now(),
    })
}

/// Asks a process for its number, when it began, and what its clock shows.
pub(super) const QUESTION: &str = "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint, \
     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint \
     FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_no_answer_leaves_the_process_unknown() {
        let row = |fields: &[&str]| {
            let mut row = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
            for field in fields {
                row.extend(i32::try_from(field.len()).unwrap().to_be_bytes());
                row.extend(field.as_bytes());
            }
            row
        };
        let identity = Identity::default();
        let null = [&[0, 1][..], &(-1_i32).to_be_bytes()].concat();
        for bad in [
            row(&["1", "2"]),
            row(&["a", "2", "3", "4"]),
            Vec::new(),
            null,
        ] {
            identity.read(&bad, 7);
            assert!(identity.process().is_none());
        }
        let answer = row(&["7", "1700000000000001", "17", "1700000000000009"]);
        identity.read(&answer, 8);
        assert!(
            identity.process().is_none(),
            "a pooler's client has no process of its own"
        );
        identity.read(&answer, 7);
        let process = identity.process().unwrap();
        assert_eq!((process.pid, process.began), (7, 1_700_000_000_000_001));
        assert_eq!(process.clock, 1_700_000_000_000_009);

        let behind_proxy = Identity::default();
        behind_proxy.want(true);
        behind_proxy.read(&answer, 8);
        assert!(behind_proxy.process().is_some());
    }
}
