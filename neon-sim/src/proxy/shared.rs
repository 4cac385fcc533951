//! What all connections of the proxy share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::backend::Canceller;
use super::link::Latency;
use super::route::Endpoint;
use super::timing::Timing;
use super::tls::Tls;
use crate::control::admission::Admission;
use crate::control::compute::Compute;
use crate::control::counters::Tally;
use crate::control::faults::Faults;
use crate::control::roles::Roles;
use crate::protocol::scram;
use crate::protocol::startup::CancelKey;
use crate::sync::locked;

/// The proxy's settings, its certificate, and what it stands in front of.
pub(crate) struct Shared {
    pub(crate) domain: String,
    pub(crate) endpoint: String,
    pub(crate) tls: Tls,
    pub(crate) channel_binding: bool,
    pub(crate) timing: Timing,
    pub(crate) compute: Arc<Compute>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) latency: Latency,
    pub(crate) direct: Arc<Tally>,
    pub(crate) pooled: Arc<Tally>,
    pub(crate) postgres: PathBuf,
    pub(crate) pgbouncer: PathBuf,
    pub(crate) roles: Roles,
    pub(crate) cancellable: Cancellable,
    /// Nothing if there is no limit.
    pub(crate) doorkeeper: Option<Doorkeeper>,
}

impl Shared {
    /// Returns whether this is the one endpoint that there is.
    pub(crate) fn has(&self, endpoint: &Endpoint) -> bool {
        endpoint.name == self.endpoint
    }

    /// Returns the socket of the server behind an endpoint.
    pub(crate) fn socket(&self, endpoint: &Endpoint) -> &PathBuf {
        match endpoint.pooled {
            true => &self.pgbouncer,
            false => &self.postgres,
        }
    }

    /// Refuses a login if there are too many.
    pub(super) fn admit_login(&self) -> Result<(), &'static str> {
        self.admit(Admission::refuse_login)
    }

    /// Refuses to wake the compute if too many ask for it.
    pub(super) fn admit_wake(&self) -> Result<(), &'static str> {
        match self.compute.is_suspended() {
            true => self.admit(Admission::refuse_wake),
            false => Ok(()),
        }
    }

    fn admit(
        &self,
        refuse: impl Fn(&mut Admission, Duration) -> Option<&'static str>,
    ) -> Result<(), &'static str> {
        let Some(Doorkeeper { began, admission }) = &self.doorkeeper else {
            return Ok(());
        };
        let mut admission = locked(admission);
        refuse(&mut admission, began.elapsed()).map_or(Ok(()), Err)
    }

    /// Returns the counters of an endpoint.
    pub(crate) fn tally(&self, endpoint: &Endpoint) -> &Arc<Tally> {
        match endpoint.pooled {
            true => &self.pooled,
            false => &self.direct,
        }
    }
}

/// The limits of the attempts, on the clock.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    began: Instant,
    admission: Mutex<Admission>,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            admission: Mutex::default(),
        }
    }
}

/// The sessions that can be cancelled, by the keys that their clients know.
#[derive(Default)]
pub(crate) struct Cancellable(Mutex<HashMap<CancelKey, (Canceller, Arc<Tally>)>>);

impl Cancellable {
    pub(super) fn find(&self, key: CancelKey) -> Option<(Canceller, Arc<Tally>)> {
        locked(&self.0).get(&key).cloned()
    }

    /// Makes up a key for a client, by which its session is found until the registration is dropped.
    pub(super) fn register(
        &self,
        canceller: Option<Canceller>,
        tally: &Arc<Tally>,
    ) -> Registration<'_> {
        let key = CancelKey {
            process: scram::random(),
            secret: scram::random(),
        };
        if let Some(canceller) = canceller {
            locked(&self.0).insert(key, (canceller, Arc::clone(tally)));
        }
        Registration {
            sessions: self,
            key,
        }
    }
}

/// A session that can be cancelled.
pub(super) struct Registration<'a> {
    sessions: &'a Cancellable,
    pub(super) key: CancelKey,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        locked(&self.sessions.0).remove(&self.key);
    }
}
