//! [`Metrics`]: OpenTelemetry's `db.client.connection.*` through the `metrics` crate.

#[cfg(feature = "metrics")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::policy::Policy;
use crate::url::DatabaseUrl;
use crate::util::clock::Moment;

/// The instruments of one pool; empty without the feature `metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    instruments: Instruments,
}

#[cfg(feature = "metrics")]
struct Instruments {
    idle: metrics::Gauge,
    used: metrics::Gauge,
    pending: metrics::Gauge,
    timeouts: metrics::Counter,
    create_time: metrics::Histogram,
    wait_time: metrics::Histogram,
    use_time: metrics::Histogram,
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self)]
impl Metrics {
    pub(crate) fn new(_: &DatabaseUrl, _: &Policy) -> Self {
        Self {}
    }

    pub(crate) fn opened(&self, _: Duration) {}
    pub(crate) fn closed(&self) {}
    pub(crate) fn started_waiting(&self) {}
    pub(crate) fn stopped_waiting(&self) {}
    pub(crate) fn timed_out(&self) {}
    pub(crate) fn handed_out(&self, _: Duration) {}
    pub(crate) fn returned(&self, _: &Moment) {}
}

#[cfg(feature = "metrics")]
impl Metrics {
    /// Registers the instruments with the recorder that is installed at this moment.
    pub(crate) fn new(url: &DatabaseUrl, policy: &Policy) -> Self {
        // OpenTelemetry's semantic conventions name a pool by its server and its database.
        let host = &url.hosts()[0];
        let database = url.database().unwrap_or_default();
        let name = format!("{}:{}/{database}", host.name, host.port);
        let label = || ("db.client.connection.pool.name", name.clone());
        let count = |state| {
            metrics::gauge!(
                "db.client.connection.count",
                &[label(), ("db.client.connection.state", String::from(state))]
            )
        };
        let gauge = |metric: &'static str| metrics::gauge!(metric, &[label()]);
        let histogram = |metric: &'static str| metrics::histogram!(metric, &[label()]);
        gauge("db.client.connection.max").set(policy.max_size());
        gauge("db.client.connection.idle.max").set(policy.max_size());
        gauge("db.client.connection.idle.min").set(policy.min_idle());
        Self {
            instruments: Instruments {
                idle: count("idle"),
                used: count("used"),
                pending: gauge("db.client.connection.pending_requests"),
                timeouts: metrics::counter!("db.client.connection.timeouts", &[label()]),
                create_time: histogram("db.client.connection.create_time"),
                wait_time: histogram("db.client.connection.wait_time"),
                use_time: histogram("db.client.connection.use_time"),
            },
        }
    }

    /// Counts a new connection as idle.
    pub(crate) fn opened(&self, took: Duration) {
        self.tell(|to| {
            to.idle.increment(1);
            to.create_time.record(took);
        });
    }

    /// Counts out an idle connection that is closed.
    pub(crate) fn closed(&self) {
        self.tell(|to| to.idle.decrement(1));
    }

    pub(crate) fn started_waiting(&self) {
        self.tell(|to| to.pending.increment(1));
    }

    pub(crate) fn stopped_waiting(&self) {
        self.tell(|to| to.pending.decrement(1));
    }

    pub(crate) fn timed_out(&self) {
        self.tell(|to| to.timeouts.increment(1));
    }

    pub(crate) fn handed_out(&self, waited: Duration) {
        self.tell(|to| {
            to.idle.decrement(1);
            to.used.increment(1);
            to.wait_time.record(waited);
        });
    }

    pub(crate) fn returned(&self, since: &Moment) {
        self.tell(|to| {
            to.used.decrement(1);
            to.idle.increment(1);
            to.use_time.record(since.monotonic().elapsed());
        });
    }

    /// Tells the recorder. If it panics, the value is lost, and nothing else: callers and connections are told of in the
    /// middle of being handed over, and while they are dropped.
    fn tell(&self, what: impl FnOnce(&Instruments)) {
        let tell = AssertUnwindSafe(|| what(&self.instruments));
        let _ = catch_unwind(tell);
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Instruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instruments").finish_non_exhaustive()
    }
}
