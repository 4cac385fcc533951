//! Events and counters in JSON.

use serde_json::{Map, Value, json};

use crate::control::compute::Compute;
use crate::control::counters::Tally;
use crate::control::event::{Event, Suspension};

/// Returns the state of the compute, and the counters.
pub(super) fn state(compute: &Compute, direct: &Tally, pooled: &Tally) -> Value {
    let (wakes, suspensions, slept) = compute.history();
    let endpoint = |tally: &Tally| -> Value {
        let counters = tally.read().by_name();
        let counters = counters
            .into_iter()
            .map(|(name, n)| (name.to_owned(), n.into()));
        counters.collect::<Map<_, _>>().into()
    };
    json!({
        "compute": compute.state(),
        "cold_start_ms": milliseconds(compute.cold_start()),
        "wakes": wakes,
        "suspensions": suspensions,
        "time_suspended_ms": milliseconds(slept),
        "direct": endpoint(direct),
        "pooled": endpoint(pooled),
    })
}

/// Returns an event, with the state that the compute is in from then on.
pub(super) fn event(event: &Event) -> Value {
    match event {
        Event::Suspended {
            suspension,
            sessions,
        } => {
            let suspension = match suspension {
                Suspension::Normal => "normal",
                Suspension::Reset => "reset",
                Suspension::Silent => "silent",
            };
            json!({
                "event": "suspended",
                "compute": "asleep",
                "suspension": suspension,
                "sessions": sessions,
            })
        }
        Event::Waking => json!({ "event": "waking", "compute": "waking" }),
        Event::WakeFailed { message } => {
            json!({ "event": "wake_failed", "compute": "asleep", "message": message })
        }
        Event::Woken { slept } => {
            json!({ "event": "woken", "compute": "awake", "slept_ms": milliseconds(*slept) })
        }
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
