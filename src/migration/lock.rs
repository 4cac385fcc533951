//! The lock that makes migrators take turns.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::MigrateError;
use super::report::{Holder, Progress};
use super::session::Session;

/// The key of the session advisory lock, of which each database has its own. Take it with
/// `pg_advisory_lock` to keep every migrator out.
pub const LOCK_KEY: i64 = i64::from_be_bytes(*b"dieselne");

/// Takes the lock, and returns how long that took.
///
/// Polls: a session that waits *in* `pg_advisory_lock` would hold a snapshot, which a
/// `CREATE INDEX CONCURRENTLY` of the lock's holder waits for, and both would wait for each other.
pub(super) async fn take(
    session: &Session,
    longest: Duration,
    mut tell: impl FnMut(Progress),
) -> Result<Duration, MigrateError> {
    let began = Instant::now();
    let take = format!("SELECT pg_try_advisory_lock({LOCK_KEY})");
    let mut told = None;
    let mut pause = FIRST_PAUSE;
    loop {
        if session.value(&take).await?.as_deref() == Some("t") {
            return Ok(began.elapsed());
        }
        let holder = holder(session).await?;
        let waited = began.elapsed();
        if waited >= longest {
            return Err(MigrateError::Locked { holder, waited });
        }
        if let Some(holder) = holder.filter(|holder| told != Some(holder.pid)) {
            told = Some(holder.pid);
            tell(Progress::Waiting { holder });
        }
        // Jitter keeps waiting migrators from asking at the same time.
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = session.until_stopped() => return Err(MigrateError::Stopped),
            () = sleep(jittered.min(longest.saturating_sub(waited))) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns the statements that roll a failed migration back and free the lock.
pub(super) fn release() -> String {
    format!("ROLLBACK; SELECT pg_advisory_unlock({LOCK_KEY})")
}

async fn holder(session: &Session) -> Result<Option<Holder>, MigrateError> {
    let sql = format!(
        "SELECT l.pid, a.application_name, a.usename, host(a.client_addr), \
         to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') \
         FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {} AND l.objid = {} \
         AND l.objsubid = 1 AND l.database = \
         (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())",
        (LOCK_KEY as u64) >> 32,
        LOCK_KEY as u32,
    );
    let rows = session.rows(&sql).await?;
    Ok(rows.first().and_then(|row| {
        let text = |i| row.get(i).filter(|text| !text.is_empty()).map(Into::into);
        Some(Holder {
            pid: row.get(0)?.parse().ok()?,
            application_name: text(1),
            user: text(2),
            address: text(3),
            since: text(4),
        })
    }))
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
