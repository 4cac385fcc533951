//! The metrics that a recorder of the `metrics` crate gets, under OpenTelemetry's names.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use common::{HANG, neon, pool};

/// Returns the changes since the last call: gauges and counters by name and state; of histograms, the number of values.
fn read(snapshotter: &Snapshotter) -> HashMap<String, f64> {
    let snapshot = snapshotter.snapshot().into_vec().into_iter();
    let values = snapshot.map(|(key, _, _, value)| {
        let key = key.key();
        let labels: HashMap<_, _> = key.labels().map(|l| (l.key(), l.value())).collect();
        assert!(labels["db.client.connection.pool.name"].ends_with("/neondb"));
        let name = match labels.get("db.client.connection.state") {
            Some(state) => format!("{} {state}", key.name()),
            None => key.name().to_owned(),
        };
        let value = match value {
            DebugValue::Counter(n) => n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (name, value)
    });
    values.collect()
}

#[tokio::test]
async fn the_pool_reports_what_opentelemetry_asks_for() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(2));
    let mut first = pool.get().await.unwrap();
    let second = pool.get().await.unwrap();
    first.batch_execute("SELECT 1").await.unwrap();
    let brief = Duration::from_millis(300);
    pool.get_timeout(brief).await.unwrap_err();
    drop(second);

    let seen = read(&snapshotter);
    for (name, expected) in [
        ("count idle", 1.0),
        ("count used", 1.0),
        ("max", 2.0),
        ("idle.max", 2.0),
        ("idle.min", 0.0),
        ("pending_requests", 0.0),
        ("timeouts", 1.0),
        ("create_time", 2.0),
        ("wait_time", 2.0),
        ("use_time", 1.0),
    ] {
        let name = format!("db.client.connection.{name}");
        assert_eq!(seen.get(&name), Some(&expected), "{name} in {seen:?}");
    }

    drop(first);
    pool.close(Duration::from_secs(10)).await.unwrap();
    let seen = read(&snapshotter);
    assert_eq!(seen["db.client.connection.count idle"], -1.0);
    assert_eq!(seen["db.client.connection.count used"], -1.0);
}

/// Panics whenever it is told a value.
struct Panicking;

impl CounterFn for Panicking {
    fn increment(&self, _: u64) {
        panic!("the recorder is broken");
    }

    fn absolute(&self, _: u64) {
        panic!("the recorder is broken");
    }
}

impl GaugeFn for Panicking {
    fn increment(&self, _: f64) {
        panic!("the recorder is broken");
    }

    fn decrement(&self, _: f64) {
        panic!("the recorder is broken");
    }

    fn set(&self, _: f64) {}
}

impl HistogramFn for Panicking {
    fn record(&self, _: f64) {
        panic!("the recorder is broken");
    }
}

impl Recorder for Panicking {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Self))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Self))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Self))
    }
}

#[tokio::test]
async fn a_recorder_that_panics_costs_no_connection() {
    let neon = neon().await;
    let pool = metrics::with_local_recorder(&Panicking, || {
        pool(&neon.url(), |policy| {
            let timeout = Duration::from_secs(5);
            policy.max_size(1).checkout_timeout(timeout)
        })
    });
    for _ in 0..3 {
        let held = pool.get().await.unwrap();
        assert!(pool.get_timeout(Duration::from_millis(50)).await.is_err());
        drop(held);
        pool.invalidate_all();
    }
    pool.close(HANG).await.unwrap();
    assert_eq!(pool.status().size, 0);
}

/// Panics when a line is written to it.
#[derive(Clone, Copy)]
struct Torn;

impl std::io::Write for Torn {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        panic!("the log is broken");
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_subscriber_that_panics_costs_no_connection() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| {
        let policy = policy.slow_checkout_threshold(Duration::from_nanos(1));
        policy.max_size(1).checkout_timeout(Duration::from_secs(5))
    });
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(|| Torn)
        .finish();
    {
        let _default = tracing::subscriber::set_default(subscriber);
        let told = tokio::spawn({
            let pool = pool.clone();
            async move { pool.get_owned().await.map(drop) }
        });
        assert!(told.await.unwrap_err().is_panic());
    }
    drop(pool.get().await.unwrap());
    pool.close(HANG).await.unwrap();
}
