//! A database for one test.

use std::fmt;
use std::ops::Deref;

use super::lease::Lease;
use crate::sim::neon_sim::NeonSim;

/// A database for one test, with a compute and an endpoint of its own.
///
/// It is a [`NeonSim`] whose PostgreSQL and PgBouncer serve the other test databases of the process as well. They start with the
/// first one and end with the process, also when it is killed. What is this one's own: the database, a copy of a template into which
/// the migrations were run once; the endpoints' names, ports and certificates; suspensions, faults, latency, counters and events.
/// What is shared: the roles and their passwords, and the servers' settings. The methods that would disturb
/// other tests, such as [`restart_postgres`](NeonSim::restart_postgres), return [`Error::SharedServers`](crate::Error::SharedServers);
/// [`TestDatabaseBuilder::alone`](crate::TestDatabaseBuilder::alone) gives it servers of its own.
///
/// The compute suspends on [`suspend`](NeonSim::suspend) alone, and takes 100 ms to wake. The database is removed when this is dropped.
///
/// ```no_run
/// use neon_sim::{Suspension, TestDatabase};
///
/// # async fn test() -> Result<(), neon_sim::Error> {
/// let database = TestDatabase::builder().migrations("migrations").start().await?;
/// let url = database.pooled_url();
/// // … have the app answer a request …
/// database.suspend(Suspension::Normal).await;
/// // … and another one, and then:
/// assert_eq!(database.counters().wakes, 1);
/// # Ok(())
/// # }
/// ```
pub struct TestDatabase {
    // Dropped first: its sessions end then.
    neon: NeonSim,
    _lease: Option<Lease>,
}

impl TestDatabase {
    /// Returns a database that is removed with its lease, if it has one.
    pub(super) fn of(neon: NeonSim, lease: Option<Lease>) -> Self {
        Self {
            neon,
            _lease: lease,
        }
    }

    /// Returns the direct endpoint's URL for clients that know neither `hostaddr` nor `sslrootcert`, such as sqlx and
    /// tokio-postgres.
    ///
    /// Its host is 127.0.0.1, where TLS names no endpoint; the password names it, in the form that Neon has for such clients. TLS is
    /// required. A client that verifies the certificate, too, needs the authority at [`ca_path`](NeonSim::ca_path).
    pub fn portable_url(&self) -> String {
        self.neon.url_by_address(&self.neon.host())
    }

    /// Returns the pooled endpoint's URL for clients that know neither `hostaddr` nor `sslrootcert`, as
    /// [`portable_url`](Self::portable_url).
    pub fn portable_pooled_url(&self) -> String {
        self.neon.url_by_address(&self.neon.pooled_host())
    }
}

impl Deref for TestDatabase {
    type Target = NeonSim;

    fn deref(&self) -> &NeonSim {
        &self.neon
    }
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase")
            .field("database", &self.database())
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}
