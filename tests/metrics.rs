//! The metrics that a recorder of the `metrics` crate gets, under OpenTelemetry's names.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use common::{neon, pool};

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
    let pool = pool(&neon.url(), |policy| {
        let timeout = Duration::from_millis(300);
        policy.max_size(2).checkout_timeout(timeout)
    });
    let mut first = pool.get().await.unwrap();
    let second = pool.get().await.unwrap();
    first.batch_execute("SELECT 1").await.unwrap();
    pool.get().await.unwrap_err();
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
